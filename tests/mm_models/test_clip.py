"""CLIP's image encoder behind our interface, against transformers used directly, on a tiny random release."""

import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

import mm_models
from mm_config.families import wan21
from mm_config.options.locations import Location, Locations
from mm_config.schema.errors import UserError
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import ClipImageEncoderSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights
from mm_models.images.clip import prepare
from mm_models.ops.gelu import ExactGelu
from mm_models.seeding import generator
from tests.tiny_clip import write_clip

SPEC = ClipImageEncoderSpec(
    weights=ReleasedWeights(name="tiny-clip", subfolder="image_encoder"),
    image_dim=16,
    image_size=28,
    patch_size=14,
    num_layers=3,
    num_heads=2,
    d_ff=24,
)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release folder written by transformers, with random weights."""
    folder = tmp_path_factory.mktemp("release")
    torch.manual_seed(0)
    write_clip(folder / "image_encoder", attention_dropout=0.5)
    return folder


@pytest.fixture
def locations(release: Path) -> Locations:
    return Locations((Location("tiny-clip", release, "test"),))


def frames(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=generator("frames")) * 2 - 1


def test_its_gelu_is_the_one_that_is_exact_on_every_device(locations: Locations) -> None:
    encoder: Any = mm_models.build_image_encoder(SPEC, locations=locations)
    found = [module for module in encoder.network.modules() if "gelu" in type(module).__name__.lower()]
    assert [type(module) for module in found] == [ExactGelu] * SPEC.num_layers


def test_features_are_the_output_of_the_last_layer_but_one(release: Path, locations: Locations) -> None:
    ours = mm_models.build_image_encoder(SPEC, locations=locations)
    theirs: Any = CLIPVisionModel.from_pretrained(release / "image_encoder").eval()
    pixels = prepare(frames(40, 56), 28)
    features = ours.encode(frames(40, 56))
    assert features.shape == (2, SPEC.image_tokens, 16) == (2, 5, 16) and features.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(features, theirs(pixels, output_hidden_states=True).hidden_states[-2])
        last = theirs(pixels).last_hidden_state
        del theirs.encoder.layers[-1]
        torch.testing.assert_close(features, theirs(pixels).last_hidden_state)
    assert not torch.allclose(features, last)


def test_a_frames_features_do_not_depend_on_the_other_frames(locations: Locations) -> None:
    encoder = mm_models.build_image_encoder(SPEC, locations=locations)
    together = encoder.encode(frames(28, 28))
    torch.testing.assert_close(encoder.encode(frames(28, 28)[1:]), together[1:])
    assert not torch.allclose(together[0], together[1])


def test_pixels_are_normalised_as_clip_was_trained() -> None:
    mean = torch.tensor(OPENAI_CLIP_MEAN).view(3, 1, 1)
    std = torch.tensor(OPENAI_CLIP_STD).view(3, 1, 1)
    zero_to_one = (frames(28, 28) + 1) / 2
    torch.testing.assert_close(prepare(frames(28, 28), 28), (zero_to_one - mean) / std)


def test_the_whole_frame_is_squeezed_to_a_square() -> None:
    wide = torch.full((1, 3, 20, 80), -1.0)
    wide[..., 40:] = 1
    prepared = prepare(wide, 28)
    assert prepared.shape == (1, 3, 28, 28)
    torch.testing.assert_close(prepared[..., :12], prepared[..., :1].expand(-1, -1, -1, 12))
    torch.testing.assert_close(prepared[..., 16:], prepared[..., -1:].expand(-1, -1, -1, 12))
    assert (prepared[..., -1] > prepared[..., 0]).all()


def test_the_network_runs_in_the_specs_dtype(locations: Locations) -> None:
    narrow = mm_models.build_image_encoder(attrs.evolve(SPEC, dtype=Dtype.BFLOAT16), locations=locations)
    wide = mm_models.build_image_encoder(SPEC, locations=locations)
    features = narrow.encode(frames(28, 28))
    assert features.dtype == torch.float32
    assert torch.equal(features, features.bfloat16().float())
    torch.testing.assert_close(features, wide.encode(frames(28, 28)), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("family", [wan21.I2V_14B_480P, wan21.FLF2V_14B])
def test_the_families_encoder_fits_their_image_branch(family: Any) -> None:
    encoder, model = family.image_encoder, family.model
    assert (encoder.image_tokens, encoder.image_dim) == (257, model.image_dim)
    assert model.image_positions in (None, 2 * encoder.image_tokens)


def test_a_folder_of_another_architecture_is_refused(locations: Locations) -> None:
    spec = attrs.evolve(SPEC, image_dim=32, num_layers=4)
    with pytest.raises(UserError) as caught:
        mm_models.build_image_encoder(spec, locations=locations)
    assert [str(problem).split(" in ")[0] for problem in caught.value.problems] == [
        "spec.image_encoder: hidden_size is 16",
        "spec.image_encoder: num_hidden_layers is 3",
    ]


def test_random_weights_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"spec\.image_encoder\.weights: needs released weights, got RandomWeights"
    ):
        mm_models.build_image_encoder(attrs.evolve(SPEC, weights=RandomWeights()))


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("config.json", None, " has no config.json"),
        ("config.json", b"{", "/config.json: is no JSON: "),
        ("model.safetensors", None, ": holds no weights that are known"),
        ("model.safetensors", b"12345678", "/model.safetensors: can't be read: "),
    ],
)
def test_a_broken_release_is_a_mistake_of_the_user(
    file: str, content: bytes | None, problem: str, release: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken" / "image_encoder"
    shutil.copytree(release / "image_encoder", folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    broken = Locations((Location("tiny-clip", tmp_path / "broken", "test"),))
    with pytest.raises(UserError) as caught:
        mm_models.build_image_encoder(SPEC, locations=broken)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"spec.image_encoder.weights: {folder}{problem}")


def test_weights_that_the_release_lacks_are_named(release: Path, tmp_path: Path) -> None:
    config = CLIPVisionConfig.from_pretrained(release / "image_encoder")
    config.num_hidden_layers = 2
    CLIPVisionModel(config).save_pretrained(tmp_path / "image_encoder")
    shutil.copy(release / "image_encoder" / "config.json", tmp_path / "image_encoder")
    short = Locations((Location("tiny-clip", tmp_path, "test"),))
    with pytest.raises(UserError, match=r"weights: .*image_encoder lacks .*layers\.2\."):
        mm_models.build_image_encoder(SPEC, locations=short)
