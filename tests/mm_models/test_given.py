"""What a network is given, against diffusers' own `WanImageToVideoPipeline`, and what becomes of it."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline  # type: ignore[attr-defined]
from torch import Tensor

import mm_models
from mm_config.options.locations import Location, Locations
from mm_config.specs.encoders import LatentMode, WanAutoencoderSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.wan import WanTransformerSpec
from mm_config.specs.weights import ReleasedWeights
from mm_models import Autoencoder, Given, given_frames, has_loss, network_inputs, own_frames, without_frames
from mm_models.seeding import generator
from tests.tiny_wan import TINY_WAN

SPEC = WanAutoencoderSpec(
    weights=ReleasedWeights(name="tiny-wan"),
    latent_channels=4,
    base_dim=8,
    dim_mult=(1, 1, 1, 1),
    num_res_blocks=1,
    latent_mode=LatentMode.SAMPLE,
)
FRAMES, HEIGHT, WIDTH = 9, 16, 32


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A release and diffusers' autoencoder of it."""
    torch.manual_seed(0)
    network = AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 1.5, 2.0, 0.7],
    )
    folder = tmp_path_factory.mktemp("vae")
    network.save_pretrained(folder)
    return folder, network.eval()


@pytest.fixture
def autoencoder(theirs: tuple[Path, Any]) -> Autoencoder:
    locations = Locations((Location("tiny-wan", theirs[0], "test"),))
    return mm_models.build_autoencoder(SPEC, locations=locations)


def network_of(conditioning: Conditioning) -> WanTransformerSpec:
    return attrs.evolve(TINY_WAN, conditioning=conditioning)


def video() -> Tensor:
    return torch.rand(2, 3, FRAMES, HEIGHT, WIDTH, generator=generator("video")) * 2 - 1


@torch.no_grad()
def prepared(vae: Any, first: Tensor, last: Tensor | None, *, expand: bool) -> tuple[Tensor, ...]:
    """What diffusers' pipeline prepares for one first frame."""
    pipeline: Any = WanImageToVideoPipeline(
        tokenizer=None,  # type: ignore[arg-type]
        text_encoder=None,  # type: ignore[arg-type]
        vae=vae,
        scheduler=None,  # type: ignore[arg-type]
        expand_timesteps=expand,
    )
    latents = torch.zeros(1, 4, 3, HEIGHT // 8, WIDTH // 8)
    sizes = {"num_channels_latents": 4, "height": HEIGHT, "width": WIDTH, "num_frames": FRAMES}
    return pipeline.prepare_latents(
        first, 1, **sizes, dtype=torch.float32, device=torch.device("cpu"), latents=latents, last_image=last
    )


@pytest.mark.parametrize("conditioning", [Conditioning.FIRST_FRAME, Conditioning.FIRST_AND_LAST_FRAME])
def test_channels_beside_the_noise_are_those_of_diffusers_pipeline(
    conditioning: Conditioning, theirs: tuple[Path, Any], autoencoder: Autoencoder
) -> None:
    model = network_of(conditioning)
    frames = own_frames(model, video())
    given = given_frames(model, 4, autoencoder, None, frames, FRAMES)
    assert given.beside_BCTHW is not None and given.beside_BCTHW.shape == (2, 8, 3, 2, 4)
    for place, beside in enumerate(given.beside_BCTHW):
        first, last = frames[0][place, None], frames[1][place, None] if len(frames) == 2 else None
        _, expected = prepared(theirs[1], first, last, expand=False)
        assert torch.equal(beside[:4], expected[0, :4])
        torch.testing.assert_close(beside[4:], expected[0, 4:], rtol=1e-5, atol=1e-6)
    noisy, timestep = torch.randn(2, 4, 3, 2, 4), torch.tensor([900.0, 3.0])
    latents, same, image = network_inputs(given, noisy, timestep)
    assert torch.equal(latents, torch.cat((noisy, given.beside_BCTHW), 1))
    assert torch.equal(same, timestep) and image is None and has_loss(given, noisy) is None


def test_a_clean_frame_and_its_timesteps_are_those_of_diffusers_pipeline(
    theirs: tuple[Path, Any], autoencoder: Autoencoder
) -> None:
    model = network_of(Conditioning.CLEAN_FIRST_FRAME)
    frames = own_frames(model, video())
    given = given_frames(model, 4, autoencoder, None, frames, FRAMES)
    noisy, timestep = torch.randn(2, 4, 3, 2, 4), torch.tensor([900.0, 3.0])
    latents, by_frame, _ = network_inputs(given, noisy, timestep)
    for place in range(2):
        _, condition, mask = prepared(theirs[1], frames[0][place, None], None, expand=True)
        # As the pipeline's loop has it before each step.
        expected = ((1 - mask) * condition + mask * noisy[place, None])[0]
        torch.testing.assert_close(latents[place], expected, rtol=1e-5, atol=1e-6)
        their_timestep = (mask[0][0][:, ::2, ::2] * timestep[place]).flatten()
        assert torch.equal(by_frame[place].repeat_interleave(2), their_timestep)


def test_samples_from_text_alone_have_noise_and_loss_everywhere_and_timesteps_by_frame_too() -> None:
    clean = torch.ones(3, 4, 1, 2, 4)
    given = without_frames(
        Given(clean_BC1HW=clean, has_clean_B=torch.tensor([True] * 3)), (False, True, False)
    )
    noisy = torch.randn(3, 4, 3, 2, 4)
    latents, timestep, _ = network_inputs(given, noisy, torch.tensor([5.0, 6.0, 7.0]))
    assert timestep.tolist() == [[0, 5, 5], [6, 6, 6], [0, 7, 7]]
    assert torch.equal(latents[1], noisy[1]) and torch.equal(latents[::2, :, :1], clean[::2])
    predicted = has_loss(given, noisy)
    assert predicted is not None and predicted[:, 0, :, 0, 0].tolist() == [[0, 1, 1], [1, 1, 1], [0, 1, 1]]
