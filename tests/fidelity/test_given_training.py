"""A step of trainings on given frames, computed again with diffusers' networks and transformers' CLIP.

What the network is given is written out here by hand, after diffusers' `WanImageToVideoPipeline`.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan  # type: ignore[attr-defined]
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionModel
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

import mm_train
from experiments import tiny_high
from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs import (
    AdamWSpec,
    Cache,
    ClipImageEncoderSpec,
    Conditioning,
    Decay,
    Expert,
    LatentMode,
    ReleasedWeights,
    ShapesSpec,
    TrainSpec,
    WanAutoencoderSpec,
    WanTransformerSpec,
)
from mm_models.seeding import generator
from mm_train import losses, training
from mm_train.sources import Samples
from tests.mm_models.parity import pair, relative_error
from tests.tiny_clip import write_clip

MEAN, STD = [0.1, -0.2, 0.3, 0.0], [0.5, 1.5, 2.0, 0.7]
IMAGE_DIM, IMAGE_TOKENS = 16, 5
SPEC: TrainSpec = replace(
    tiny_high.SPEC,
    {
        "model.hidden_size": 36,
        "model.num_attention_heads": 3,
        "model.ffn_dim": 48,
        "model.num_layers": 2,
        "model.patch_size": (1, 2, 2),
        "model.in_channels": 4,
        "model.out_channels": 4,
        "autoencoder": WanAutoencoderSpec(
            weights=ReleasedWeights(name="test", subfolder="vae"),
            latent_channels=4,
            base_dim=8,
            dim_mult=(1, 1, 1, 1),
            num_res_blocks=1,
        ),
        "diffusion.shift": 5.0,
        "data.dataset": ShapesSpec(clips_per_caption=1, size=32, num_frames=9),
        "data.batch_size": 4,
        "data.num_frames": 9,
        "data.height": 32,
        "data.width": 48,
        "data.cache": Cache.NONE,
        "optim": AdamWSpec(lr=1e-3, betas=(0.5, 0.99), max_grad_norm=1e9),
        "schedule.steps": 1,
        "schedule.warmup_steps": 0,
        "schedule.decay": Decay.CONSTANT,
        "checkpoint.every_steps": 1,
        "runtime.micro_batch_size": 2,
        "runtime.device": "cpu",
    },
)
BESIDE = {"model.in_channels": 12}
BRANCH = {
    "model.image_dim": IMAGE_DIM,
    "image_encoder": ClipImageEncoderSpec(
        weights=ReleasedWeights(name="test", subfolder="image_encoder"),
        image_dim=IMAGE_DIM,
        image_size=28,
        patch_size=14,
        num_layers=3,
        num_heads=2,
        d_ff=24,
    ),
}
CASES: dict[str, dict[str, Any]] = {
    "Wan2.2 I2V": {"model.conditioning": Conditioning.FIRST_FRAME, **BESIDE},
    "Wan2.1 I2V": {"model.conditioning": Conditioning.FIRST_FRAME, **BESIDE, **BRANCH},
    "Wan2.1 FLF2V": {
        "model.conditioning": Conditioning.FIRST_AND_LAST_FRAME,
        "model.image_positions": 2 * IMAGE_TOKENS,
        **BESIDE,
        **BRANCH,
    },
    "Wan2.2 TI2V": {"model.conditioning": Conditioning.CLEAN_FIRST_FRAME, "data.frame_dropout": 0.5},
}
MASKS = {
    Conditioning.FIRST_FRAME: [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]],
    Conditioning.FIRST_AND_LAST_FRAME: [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1]],
}
"""By channel and latent frame: latent frame 0 is frame 0, latent frame t is frames 4t - 3 to 4t."""


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders written by diffusers and transformers, with random weights."""
    folder = tmp_path_factory.mktemp("releases")
    torch.manual_seed(0)
    AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=MEAN, latents_std=STD
    ).save_pretrained(folder / "vae")
    write_clip(folder / "image_encoder", width=IMAGE_DIM)
    return folder


@attrs.define
class Taken:
    """What a training took from its data and its random numbers, sample by sample."""

    frames: list[Tensor] = attrs.field(factory=list)
    latents: list[Tensor] = attrs.field(factory=list)
    text: list[Tensor] = attrs.field(factory=list)
    noise: list[Tensor] = attrs.field(factory=list)
    sigma: list[float] = attrs.field(factory=list)
    weight: list[float] = attrs.field(factory=list)
    from_text: list[bool] = attrs.field(factory=list)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    """Filled while a training runs."""
    taken = Taken()
    source_of, draw = training.opened_source, losses.draw

    def recording_source(*arguments: Any) -> Any:
        source = source_of(*arguments)

        def collate(clips: Any, *others: Any) -> Samples:
            samples = source.collate(clips, *others)
            taken.frames += [clip.frames.clone() for clip in clips]
            taken.latents += samples.latents_BCTHW.clone()
            taken.text += samples.text_BLD.clone()
            return samples

        return attrs.evolve(source, collate=collate)

    def recording_draw(*arguments: Any) -> Any:
        draws = draw(*arguments)
        taken.noise += draws.noise_BCTHW.clone()
        taken.sigma += draws.sigma_B.tolist()
        taken.weight += draws.weight_B.tolist()
        taken.from_text += draws.from_text
        return draws

    monkeypatch.setattr(training, "opened_source", recording_source)
    monkeypatch.setattr(losses, "draw", recording_draw)
    return taken


@attrs.frozen
class Theirs:
    """Diffusers' and transformers' networks."""

    network: Any
    vae: Any
    clip: Any

    @torch.no_grad()
    def encoded(self, video_3THW: Tensor) -> Tensor:
        """The normalised mode of a video's latents."""
        mode = self.vae.encode(video_3THW[None]).latent_dist.mode()
        return (mode - torch.tensor(MEAN).view(1, -1, 1, 1, 1)) / torch.tensor(STD).view(1, -1, 1, 1, 1)

    @torch.no_grad()
    def seen(self, frame_3HW: Tensor) -> Tensor:
        """CLIP's features of a frame in [-1, 1]."""
        square = F.interpolate(frame_3HW[None], size=(28, 28), mode="bicubic")
        mean, std = (torch.tensor(one).view(3, 1, 1) for one in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        pixels = (square * 0.5 + 0.5 - mean) / std
        return self.clip(pixels, output_hidden_states=True).hidden_states[-2]


def loss_of(theirs: Theirs, spec: TrainSpec, taken: Taken) -> Tensor:
    """Mean over the batch of the weighted mean squared error of the velocity where it is predicted."""
    given, values = spec.model.conditioning, []
    for place, frames in enumerate(taken.frames):
        video = frames.permute(3, 0, 1, 2).float() / 127.5 - 1
        sampled = getattr(spec.autoencoder, "latent_mode", None) is LatentMode.SAMPLE
        x0 = taken.latents[place][None] if sampled else theirs.encoded(video)
        sigma, noise = taken.sigma[place], taken.noise[place][None]
        noised, begin = (1 - sigma) * x0 + sigma * noise, 0
        timestep = torch.tensor([1000 * sigma])
        images = None
        if given is Conditioning.CLEAN_FIRST_FRAME:
            timestep = timestep.repeat(1, 3 * 2 * 3)  # 3 latent frames of 2 x 3 tokens.
            if not taken.from_text[place]:
                noised[:, :, :1] = theirs.encoded(video[:, :1])
                timestep[:, : 2 * 3] = 0
                begin = 1
        else:
            still = torch.zeros_like(video)
            still[:, 0] = video[:, 0]
            images = [video[:, 0]]
            if given is Conditioning.FIRST_AND_LAST_FRAME:
                still[:, -1] = video[:, -1]
                images.append(video[:, -1])
            mask = torch.tensor(MASKS[given]).float()[None, :, :, None, None].expand(1, 4, 3, 4, 6)
            noised = torch.cat((noised, mask, theirs.encoded(still)), 1)
        text, seen = taken.text[place][None], None
        if spec.image_encoder is not None and images:
            # diffusers takes all but the last 512 tokens for the image's; a softmax over repeated keys is the
            # softmax over the keys.
            text = text.repeat(1, 512 // text.shape[1], 1)
            seen = torch.cat([theirs.seen(image) for image in images])
        velocity = theirs.network(noised, timestep, text, seen, return_dict=False)[0]
        error = (velocity - (noise - x0))[:, :, begin:]
        values.append(taken.weight[place] * error.square().mean())
    return torch.stack(values).mean()


@pytest.mark.parametrize(
    ("name", "expert"),
    [
        *product(CASES, (Expert.HIGH_NOISE, Expert.LOW_NOISE)),
        ("Wan2.2 I2V, sampled", Expert.HIGH_NOISE),
    ],
)
def test_loss_and_gradients_on_given_frames_are_those_of_diffusers_networks(
    name: str, expert: Expert, taken: Taken, releases: Path, tmp_path: Path
) -> None:
    start = ReleasedWeights(name=f"start of {name}, {expert.value}")
    changes = {**CASES[name.removesuffix(", sampled")], "expert": expert, "start_from": start}
    spec: TrainSpec = replace(SPEC, changes)
    if name.endswith("sampled"):
        spec = replace(spec, "autoencoder.latent_mode", LatentMode.SAMPLE)
    assert isinstance(spec.model, WanTransformerSpec)
    network: Any = pair(spec.model)[0]
    network.save_pretrained(tmp_path / "start")
    places = {"test": releases, start.name: tmp_path / "start"}
    locations = Locations(tuple(Location(*place, "the test") for place in places.items()))
    result = mm_train.train(spec, RunOptions(runs_dir=releases / "runs", locations=locations))

    vae = AutoencoderKLWan.from_pretrained(releases / "vae")
    clip: Any = CLIPVisionModel.from_pretrained(releases / "image_encoder")
    loss = loss_of(Theirs(network, vae, clip.eval()), spec, taken)
    (line,) = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert line["loss"] == pytest.approx(loss.item(), rel=1e-5)
    expected = torch.autograd.grad(loss, list(network.parameters()))
    folder = result.run_dir / "checkpoints" / "step-00000001" / "optimizer"
    moments = {name: one for file in folder.glob("*.safetensors") for name, one in load_file(file).items()}
    for (parameter, _), gradient in zip(network.named_parameters(), expected, strict=True):
        assert gradient.any(), parameter
        assert relative_error(moments[f"{parameter}.exp_avg"] / 0.5, gradient) <= 1e-4, parameter
    if spec.data.frame_dropout:
        draws = [torch.rand((), generator=generator(spec.seed, 0, place, "frame")) for place in range(4)]
        assert taken.from_text == [bool(drawn < 0.5) for drawn in draws]
        assert len(set(taken.from_text)) == 2
