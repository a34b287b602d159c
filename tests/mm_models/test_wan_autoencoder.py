"""Wan's autoencoder behind our interface, against diffusers used directly."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from diffusers import AutoencoderKLWan  # type: ignore[attr-defined]

import mm_models
from mm_config.options.locations import Location, Locations
from mm_config.schema.errors import UserError
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import LatentMode, WanAutoencoderSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights
from mm_models.seeding import generator
from tests.live_bytes import peak_of

SPEC = WanAutoencoderSpec(
    weights=ReleasedWeights(name="tiny-wan", subfolder="vae"),
    latent_channels=4,
    base_dim=8,
    dim_mult=(1, 1, 1, 1),
    num_res_blocks=1,
)
MEAN, STD = [0.1, -0.2, 0.3, 0.0], [0.5, 1.5, 2.0, 0.7]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These convolutions are so small that threads would mostly wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release folder written by diffusers, with random weights."""
    folder = tmp_path_factory.mktemp("release")
    torch.manual_seed(0)
    network = AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=MEAN, latents_std=STD
    )
    network.save_pretrained(folder / "vae")
    return folder


@pytest.fixture
def locations(release: Path) -> Locations:
    return Locations((Location("tiny-wan", release, "test"),))


def clip(frames: int = 5, size: int = 16) -> torch.Tensor:
    return torch.rand(2, 3, frames, size, size, generator=generator("clip")) * 2 - 1


def test_encode_and_decode_equal_diffusers(release: Path, locations: Locations) -> None:
    theirs: Any = AutoencoderKLWan.from_pretrained(release / "vae").eval()
    ours = mm_models.build_autoencoder(SPEC, locations=locations)
    mean, std = torch.tensor(MEAN).view(4, 1, 1, 1), torch.tensor(STD).view(4, 1, 1, 1)
    with torch.no_grad():
        raw = theirs.encode(clip()).latent_dist.mode()
        latents = ours.encode(clip())
        assert latents.shape == (2, 4, *SPEC.latent_shape(5, 16, 16))
        torch.testing.assert_close(latents, (raw - mean) / std)
        torch.testing.assert_close(ours.decode(latents), theirs.decode(raw).sample, atol=1e-5, rtol=1e-4)


def test_the_first_frame_is_encoded_from_itself_alone(locations: Locations) -> None:
    ours = mm_models.build_autoencoder(SPEC, locations=locations)
    torch.testing.assert_close(ours.encode(clip())[:, :, :1], ours.encode(clip()[:, :, :1]))


def test_a_clips_sample_is_its_own_in_any_batch(locations: Locations) -> None:
    spec = attrs.evolve(SPEC, latent_mode=LatentMode.SAMPLE)
    ours = mm_models.build_autoencoder(spec, locations=locations)
    mode = mm_models.build_autoencoder(SPEC, locations=locations)
    together, again = ours.encode(clip()), ours.encode(clip())
    assert torch.equal(together, again)
    assert torch.equal(ours.encode(clip()[1:]), together[1:])
    assert not torch.allclose(together, mode.encode(clip()))


def test_memory_of_encoding_does_not_grow_with_the_length_or_the_batch(locations: Locations) -> None:
    ours = mm_models.build_autoencoder(SPEC, locations=locations)
    short, long = (torch.rand(1, 3, frames, 16, 16, generator=generator("long")) for frames in (9, 33))
    least, _ = peak_of(ours.encode, short)
    most, latents = peak_of(ours.encode, long)
    assert least > 100 * latents.nbytes
    assert most <= least + 4 * latents.nbytes
    batch = torch.cat([short, -short])
    widest, together = peak_of(ours.encode, batch)
    assert widest <= least + 2 * together.nbytes
    assert torch.equal(ours.encode(batch[1:]), together[1:])


def test_latents_of_a_long_clip_equal_those_of_the_whole_batch_at_once(
    release: Path, locations: Locations
) -> None:
    theirs: Any = AutoencoderKLWan.from_pretrained(release / "vae").eval()
    ours = mm_models.build_autoencoder(SPEC, locations=locations)
    batch = torch.rand(2, 3, 21, 16, 8, generator=generator("batch")) * 2 - 1
    mean, std = torch.tensor(MEAN).view(4, 1, 1, 1), torch.tensor(STD).view(4, 1, 1, 1)
    with torch.no_grad():
        at_once = (theirs.encode(batch).latent_dist.mode() - mean) / std
        latents = ours.encode(batch)
        torch.testing.assert_close(latents, at_once, atol=1e-5, rtol=1e-5)
        decoded = theirs.decode(at_once * std + mean).sample
        torch.testing.assert_close(ours.decode(latents), decoded, atol=1e-5, rtol=1e-4)


def test_tiles_bound_memory_whatever_the_size_of_the_picture(locations: Locations) -> None:
    tiles = attrs.evolve(SPEC, tiling=True, tile_size=(16, 16), tile_stride=(16, 16))
    ours = mm_models.build_autoencoder(tiles, locations=locations)
    least, small = peak_of(ours.encode, clip(5, 24)[:1])
    most, large = peak_of(ours.encode, clip(5, 64)[:1])
    assert large.nbytes > 5 * small.nbytes
    assert most <= least + 6 * large.nbytes
    whole = mm_models.build_autoencoder(SPEC, locations=locations)
    assert peak_of(whole.encode, clip(5, 64)[:1])[0] > 4 * most


def test_bfloat16_gives_float32_latents_near_those_of_float32(locations: Locations) -> None:
    narrow = mm_models.build_autoencoder(attrs.evolve(SPEC, dtype=Dtype.BFLOAT16), locations=locations)
    wide = mm_models.build_autoencoder(SPEC, locations=locations)
    latents = narrow.encode(clip())
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, wide.encode(clip()), atol=0.05, rtol=0.05)
    assert narrow.decode(latents).dtype == torch.float32


def test_tiling_changes_only_the_seams(locations: Locations) -> None:
    tiled = mm_models.build_autoencoder(attrs.evolve(SPEC, tiling=True), locations=locations)
    whole = mm_models.build_autoencoder(SPEC, locations=locations)
    video = clip(1, 272)[:1]
    expected, actual = whole.encode(video), tiled.encode(video)
    assert actual.shape == expected.shape
    assert not torch.equal(actual, expected)
    torch.testing.assert_close(actual[..., :16, :16], expected[..., :16, :16], atol=0.2, rtol=0)


def test_random_weights_are_their_seeds(locations: Locations) -> None:
    spec = attrs.evolve(SPEC, weights=RandomWeights(seed=1))
    first, same = (mm_models.build_autoencoder(spec).encode(clip()) for _ in range(2))
    other = mm_models.build_autoencoder(attrs.evolve(spec, weights=RandomWeights(seed=2))).encode(clip())
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert first.isfinite().all() and first.std() > 0


def test_a_folder_of_another_architecture_is_refused(locations: Locations) -> None:
    spec = attrs.evolve(SPEC, latent_channels=16, num_res_blocks=2)
    with pytest.raises(UserError) as caught:
        mm_models.build_autoencoder(spec, locations=locations)
    first, second = (problem.message for problem in caught.value.problems)
    assert first.startswith("z_dim is 4 in ") and first.endswith("the spec asks for 16")
    assert second.startswith("num_res_blocks is 1 in ")


def test_weights_that_are_not_there_are_named(locations: Locations) -> None:
    with pytest.raises(UserError, match=r"spec\.autoencoder\.weights: .*/elsewhere is no folder"):
        weights = ReleasedWeights(name="tiny-wan", subfolder="elsewhere")
        mm_models.build_autoencoder(attrs.evolve(SPEC, weights=weights), locations=locations)


def _write_no_json(folder: Path) -> str:
    (folder / "config.json").write_text("{")
    return rf"spec\.autoencoder\.weights: {folder}/config\.json: is no JSON"


def _remove_the_config(folder: Path) -> str:
    (folder / "config.json").unlink()
    return rf"spec\.autoencoder\.weights: {folder} has no config\.json"


def _remove_the_weights(folder: Path) -> str:
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    return f"{folder}: holds no weights that are known"


def _cut_the_weights(folder: Path) -> str:
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    return f"{file}: can't be read: "


@pytest.mark.parametrize(
    "damage", [_write_no_json, _remove_the_config, _remove_the_weights, _cut_the_weights]
)
def test_a_broken_release_is_a_mistake_of_the_user(
    damage: Callable[[Path], str], release: Path, tmp_path: Path
) -> None:
    shutil.copytree(release, tmp_path / "broken")
    expected = damage(tmp_path / "broken" / "vae")
    locations = Locations((Location("tiny-wan", tmp_path / "broken", "test"),))
    with pytest.raises(UserError, match=expected):
        mm_models.build_autoencoder(SPEC, locations=locations)
