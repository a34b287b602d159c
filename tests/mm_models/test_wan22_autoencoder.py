"""The autoencoder of Wan2.2's 5B network, its published statistics, and tiles, against diffusers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from diffusers import AutoencoderKLWan  # type: ignore[attr-defined]

import mm_models
from mm_config.families import wan21, wan22
from mm_config.options.locations import Location, Locations
from mm_config.schema.errors import UserError
from mm_config.specs.encoders import WanAutoencoderSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights
from mm_models.autoencoders.wan_names import LATENT_STATISTICS
from mm_models.seeding import generator

SPEC = WanAutoencoderSpec(
    weights=ReleasedWeights(name="tiny-wan22", subfolder="vae"),
    latent_channels=48,
    spatial_stride=16,
    base_dim=8,
    decoder_base_dim=16,
    num_res_blocks=1,
    patch_size=2,
    is_residual=True,
)
MEAN_16 = """-0.7571 -0.7089 -0.9113 0.1075 -0.1745 0.9653 -0.1517 1.5508 0.4134 -0.0715 0.5517 -0.3632
    -0.1922 -0.9497 0.2503 -0.2921"""
STD_16 = """2.8184 1.4541 2.3275 2.6558 1.2196 1.7708 2.6052 2.0743 3.2687 2.1526 2.8652 1.5579 1.6382 1.1253
    2.8251 1.9160"""
MEAN_48 = """-0.2289 -0.0052 -0.1323 -0.2339 -0.2799 0.0174 0.1838 0.1557 -0.1382 0.0542 0.2813 0.0891 0.1570
    -0.0098 0.0375 -0.1825 -0.2246 -0.1207 -0.0698 0.5109 0.2665 -0.2108 -0.2158 0.2502 -0.2055 -0.0322 0.1109
    0.1567 -0.0729 0.0899 -0.2799 -0.1230 -0.0313 -0.1649 0.0117 0.0723 -0.2839 -0.2083 -0.0520 0.3748 0.0152
    0.1957 0.1433 -0.2944 0.3573 -0.0548 -0.1681 -0.0667"""
STD_48 = """0.4765 1.0364 0.4514 1.1677 0.5313 0.4990 0.4818 0.5013 0.8158 1.0344 0.5894 1.0901 0.6885 0.6165
    0.8454 0.4978 0.5759 0.3523 0.7135 0.6804 0.5833 1.4146 0.8986 0.5659 0.7069 0.5338 0.4889 0.4917 0.4069
    0.4999 0.6866 0.4093 0.5709 0.6065 0.6415 0.4944 0.5726 1.2042 0.5458 1.6887 0.3971 1.0600 0.3943 0.5537
    0.5444 0.4089 0.7468 0.7744"""


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These convolutions are so small that threads would mostly wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release folder written by diffusers, with random weights and the published statistics."""
    folder = tmp_path_factory.mktemp("release")
    torch.manual_seed(0)
    network = AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=16,
        z_dim=48,
        num_res_blocks=1,
        latents_mean=numbers(MEAN_48),
        latents_std=numbers(STD_48),
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )
    network.save_pretrained(folder / "vae")
    return folder


@pytest.fixture
def locations(release: Path) -> Locations:
    return Locations((Location("tiny-wan22", release, "test"),))


def clip(frames: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, frames, height, width, generator=generator("clip")) * 2 - 1


def test_diffusers_normalises_16_channels_by_the_published_statistics() -> None:
    with torch.device("meta"):
        defaults: Any = AutoencoderKLWan().config
    assert defaults.latents_mean == numbers(MEAN_16)
    assert defaults.latents_std == numbers(STD_16)


def test_original_files_are_normalised_by_the_published_statistics() -> None:
    known = {16: (MEAN_16, STD_16), 48: (MEAN_48, STD_48)}
    assert {
        channels: tuple(tuple(numbers(text)) for text in texts) for channels, texts in known.items()
    } == LATENT_STATISTICS


def test_encode_and_decode_equal_diffusers(release: Path, locations: Locations) -> None:
    theirs: Any = AutoencoderKLWan.from_pretrained(release / "vae").eval()
    ours = mm_models.build_autoencoder(SPEC, locations=locations)
    mean = torch.tensor(numbers(MEAN_48)).view(48, 1, 1, 1)
    std = torch.tensor(numbers(STD_48)).view(48, 1, 1, 1)
    video = clip(9, 32, 48)
    with torch.no_grad():
        raw = theirs.encode(video).latent_dist.mode()
        latents = ours.encode(video)
        assert latents.shape == (1, 48, *SPEC.latent_shape(9, 32, 48)) == (1, 48, 3, 2, 3)
        torch.testing.assert_close(latents, (raw - mean) / std)
        decoded = ours.decode(latents)
        assert decoded.shape == video.shape and decoded.abs().max() <= 1
        torch.testing.assert_close(decoded, theirs.decode(raw).sample, atol=1e-5, rtol=1e-4)


def test_random_weights_build_the_same_architecture(locations: Locations) -> None:
    ours: Any = mm_models.build_autoencoder(attrs.evolve(SPEC, weights=RandomWeights(seed=1)))
    released: Any = mm_models.build_autoencoder(SPEC, locations=locations)
    assert [(name, value.shape) for name, value in ours.network.named_parameters()] == [
        (name, value.shape) for name, value in released.network.named_parameters()
    ]
    latents = ours.encode(clip(5, 32, 32))
    assert latents.shape == (1, 48, 2, 2, 2) and latents.isfinite().all() and latents.std() > 0
    assert ours.decode(latents).shape == (1, 3, 5, 32, 32)


PUBLISHED_CONFIG = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "dim_mult": [1, 2, 4, 4],
    "in_channels": 12,
    "is_residual": True,
    "latents_mean": numbers(MEAN_48),
    "latents_std": numbers(STD_48),
    "num_res_blocks": 2,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "scale_factor_temporal": 4,
    "temperal_downsample": [False, True, True],
    "z_dim": 48,
}


def refusal(spec: WanAutoencoderSpec, config: dict[str, Any], folder: Path) -> list[str]:
    """What is said of a release that has only a configuration, built on meta since it is large."""
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text(json.dumps(config))
    assert isinstance(spec.weights, ReleasedWeights)
    found = Locations((Location(spec.weights.name, folder, "test"),))
    with torch.device("meta"), pytest.raises(UserError) as caught:
        mm_models.build_autoencoder(spec, locations=found)
    return [problem.message for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("family", "config"), [(wan22.TI2V_5B, PUBLISHED_CONFIG), (wan21.T2V_14B, {"z_dim": 16})]
)
def test_the_families_ask_for_the_published_architecture(
    family: Any, config: dict[str, Any], tmp_path: Path
) -> None:
    (problem,) = refusal(family.autoencoder, config, tmp_path)
    assert problem == f"{tmp_path / 'vae'}: holds no weights that are known"


def test_a_release_of_the_other_generation_is_refused(tmp_path: Path) -> None:
    problems = refusal(wan21.T2V_14B.autoencoder, PUBLISHED_CONFIG, tmp_path)  # type: ignore[arg-type]
    assert [problem.partition(f" in {tmp_path}")[0] for problem in problems] == [
        "base_dim is 160",
        "decoder_base_dim is 256",
        "z_dim is 48",
        "is_residual is True",
        "in_channels is 12",
        "out_channels is 12",
        "patch_size is 2",
        "scale_factor_spatial is 16",
    ]


def test_statistics_of_another_number_of_channels_are_refused(tmp_path: Path) -> None:
    config = {key: value for key, value in PUBLISHED_CONFIG.items() if not key.startswith("latents_")}
    (problem,) = refusal(wan22.TI2V_5B.autoencoder, config, tmp_path)  # type: ignore[arg-type]
    assert problem == f"{tmp_path / 'vae'} has 16 latents_mean for 48 channels"


def test_tiles_have_the_specs_size_and_stride(release: Path, locations: Locations) -> None:
    tiled = attrs.evolve(SPEC, tiling=True, tile_size=(48, 64), tile_stride=(32, 48))
    ours, whole = (mm_models.build_autoencoder(spec, locations=locations) for spec in (tiled, SPEC))
    theirs: Any = AutoencoderKLWan.from_pretrained(release / "vae").eval()
    theirs.enable_tiling(
        tile_sample_min_height=48,
        tile_sample_min_width=64,
        tile_sample_stride_height=32,
        tile_sample_stride_width=48,
    )
    video = clip(1, 128, 128)
    mean = torch.tensor(numbers(MEAN_48)).view(48, 1, 1, 1)
    std = torch.tensor(numbers(STD_48)).view(48, 1, 1, 1)
    with torch.no_grad():
        raw = theirs.encode(video).latent_dist.mode()
        latents = ours.encode(video)
        torch.testing.assert_close(latents, (raw - mean) / std)
        assert not torch.allclose(latents, whole.encode(video), atol=1e-3)
        decoded = ours.decode(latents)
        assert decoded.shape == video.shape
        torch.testing.assert_close(decoded, theirs.decode(raw).sample, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(decoded, whole.decode(latents), atol=1e-3)


def test_tiles_that_latent_cells_do_not_divide_are_refused(locations: Locations) -> None:
    spec = attrs.evolve(SPEC, tile_size=(64, 72), tile_stride=(80, 48))
    mm_models.build_autoencoder(spec, locations=locations)
    with pytest.raises(UserError) as caught:
        mm_models.build_autoencoder(attrs.evolve(spec, tiling=True), locations=locations)
    assert str(caught.value).splitlines() == [
        "spec.autoencoder.tile_size.1: 72 pixels are no multiple of 16; nearest: 64 or 80",
        "spec.autoencoder.tile_stride.0: is 80, above tile_size 64: tiles would leave gaps",
    ]
