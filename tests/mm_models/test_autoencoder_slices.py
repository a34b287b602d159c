"""Videos decoded a few frames at a time, with bounded memory and by several ranks, against diffusers' own."""

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import mm_models
from mm_config.schema.errors import UserError
from mm_config.specs.encoders import DctAutoencoderSpec, WanAutoencoderSpec
from mm_config.specs.kinds import AutoencoderSpec
from mm_config.specs.parallel import CompileBackend, CompileSpec
from mm_config.specs.weights import RandomWeights
from mm_models.seeding import generator
from tests.forked_ranks import RunRanks
from tests.live_bytes import LiveBytes

WAN21 = WanAutoencoderSpec(
    weights=RandomWeights(seed=1), latent_channels=4, base_dim=8, dim_mult=(1, 1, 1, 1), num_res_blocks=1
)
WAN22 = attrs.evolve(
    WAN21,
    latent_channels=48,
    spatial_stride=16,
    decoder_base_dim=16,
    dim_mult=(1, 2, 4, 4),
    patch_size=2,
    is_residual=True,
)
TILES = {"tiling": True, "tile_size": (32, 32), "tile_stride": (16, 32)}
WHOLE_OR_TILES = [{}, TILES]
BOTH = [WAN21, WAN22]
SIZE = (48, 64)
"""Pixels: the last row of tiles is cut."""
TILES_OF_A_PICTURE = 3 * 2
"""Tops at 0, 16 and 32 pixels, left sides at 0 and 32."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These convolutions are so small that threads would mostly wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(spec: AutoencoderSpec) -> Any:
    return mm_models.build_autoencoder(spec)


def latents_of(spec: AutoencoderSpec, frames: int, batch: int = 1) -> Tensor:
    shape = spec.latent_shape(1 + 4 * (frames - 1), *SIZE)
    return torch.randn(batch, spec.latent_channels, *shape, generator=generator("latents", frames))


def clip(frames: int = 9) -> Tensor:
    return torch.rand(1, 3, frames, *SIZE, generator=generator("clip")) * 2 - 1


@pytest.mark.parametrize("tiles", WHOLE_OR_TILES, ids=["whole", "tiles"])
@pytest.mark.parametrize("spec", BOTH, ids=["wan21", "wan22"])
@torch.no_grad()
def test_slices_are_diffusers_video_to_the_bit(spec: WanAutoencoderSpec, tiles: dict[str, Any]) -> None:
    ours, latents = build(attrs.evolve(spec, **tiles)), latents_of(spec, 4, batch=2)
    slices = list(mm_models.decoded_slices(ours, latents))
    assert [one.shape[2] for one in slices] == [1, 4, 4, 4]
    theirs = torch.cat([ours.network.decode(one).sample for one in latents.split(1)])
    assert torch.equal(torch.cat(slices, dim=2), theirs)
    assert torch.equal(ours.decode(latents), theirs)
    assert torch.equal(ours.encode(clip()), ours.network.encode(clip()).latent_dist.mode())


def test_slices_of_the_dct_are_its_video() -> None:
    ours, latents = build(DctAutoencoderSpec(latent_channels=12)), torch.randn(2, 12, 4, 3, 5)
    slices = list(mm_models.decoded_slices(ours, latents))
    assert [one.shape[2] for one in slices] == [1, 4, 4, 4]
    torch.testing.assert_close(torch.cat(slices, dim=2), ours.decode(latents), atol=1e-5, rtol=0)


def test_an_autoencoder_without_slices_gives_its_video_in_one_piece() -> None:
    class Plain:
        def decode(self, latents: Tensor) -> Tensor:
            return latents[:, :3].double()

    (video,) = mm_models.decoded_slices(Plain(), torch.ones(1, 4, 2, 3, 3))
    assert video.dtype == torch.float32 and video.shape == (1, 3, 2, 3, 3)


def peak_of_slices(spec: WanAutoencoderSpec, frames: int, size: tuple[int, int] = SIZE) -> int:
    """Bytes at the peak beside the latents, where each slice is dropped before the next."""
    shape = (1, spec.latent_channels, *spec.latent_shape(1 + 4 * (frames - 1), *size))
    ours, latents = build(spec), torch.randn(shape, generator=generator("latents"))
    with LiveBytes(latents) as live:
        for _ in mm_models.decoded_slices(ours, latents):
            pass
    return live.peak - 4 * latents.nbytes  # Denormalised in two steps, convolved, cut.


def test_memory_of_decoding_does_not_grow_with_the_length() -> None:
    assert peak_of_slices(WAN21, 13) <= peak_of_slices(WAN21, 5)


def test_memory_of_tiles_grows_by_waiting_pixels_alone() -> None:
    spec = attrs.evolve(WAN21, **TILES)
    short = peak_of_slices(spec, 5)
    overlapping = (32 + 32 + 16) * 64
    assert peak_of_slices(spec, 13) - short <= 8 * 4 * 3 * overlapping * 4
    larger = peak_of_slices(spec, 5, (96, 128))
    assert larger - short <= (5 * 32 + 16) * 128 * 3 * 17 * 4
    assert 2 * larger < peak_of_slices(WAN21, 5, (96, 128))


def _same_on_every_rank(rank: int, spec: WanAutoencoderSpec, tiles: int) -> None:
    alone, shared = build(spec), build(spec)
    assert dist.group.WORLD is not None
    mm_models.share_autoencoder(shared, dist.group.WORLD, timeout_seconds=60)
    passes = []
    shared.network.decoder.register_forward_pre_hook(lambda *_: passes.append(rank))
    for latents in (latents_of(spec, 5), latents_of(spec, 1)):
        assert torch.equal(shared.decode(latents), alone.decode(latents))
    for video in (clip(17), clip(1)):
        assert torch.equal(shared.encode(video), alone.encode(video))
    ranks, total = dist.get_world_size(), torch.tensor([len(passes)])
    dist.all_reduce(total)
    assert total == 6 * tiles
    assert len(passes) == (6 * -(-tiles // ranks) if tiles > 1 else -(-5 // ranks) + 1) or rank > 0


@pytest.mark.parametrize("tiles", WHOLE_OR_TILES, ids=["by time", "by tiles"])
@pytest.mark.parametrize(("spec", "ranks"), [(WAN21, 2), (WAN21, 3), (WAN22, 2)])
def test_ranks_that_share_the_work_make_the_same_to_the_bit(
    spec: WanAutoencoderSpec, ranks: int, tiles: dict[str, Any], run_ranks: RunRanks
) -> None:
    run_ranks(
        _same_on_every_rank, attrs.evolve(spec, **tiles), TILES_OF_A_PICTURE if tiles else 1, ranks=ranks
    )


def test_only_work_that_can_be_shared_is_shared() -> None:
    with pytest.raises(
        UserError, match=r"spec\.runtime\.parallel\.autoencoder: is True, but the work of this"
    ):
        group: Any = None
        mm_models.share_autoencoder(build(DctAutoencoderSpec(latent_channels=12)), group, 1)


def keep_the_centres(network: Any) -> None:
    """Makes a network that sees no neighbours in space: no attention, and the centre of each kernel alone."""
    for name, parameter in network.named_parameters():
        if ".attentions." in name and ".proj." in name:
            parameter.zero_()
        elif parameter.ndim >= 4 and parameter.shape[-1] == 3:
            centre = parameter[..., 1, 1].clone()
            parameter.zero_()[..., 1, 1] = centre


@pytest.mark.parametrize("spec", BOTH, ids=["wan21", "wan22"])
@torch.no_grad()
def test_tiles_cost_what_lies_beyond_their_edges_alone(spec: WanAutoencoderSpec) -> None:
    whole, tiled, latents = build(spec), build(attrs.evolve(spec, **TILES)), latents_of(spec, 2)
    assert (whole.decode(latents) - tiled.decode(latents)).abs().max() > 0.01
    for one in (whole, tiled):
        keep_the_centres(one.network)
    torch.testing.assert_close(tiled.decode(latents), whole.decode(latents), atol=1e-5, rtol=0)
    torch.testing.assert_close(tiled.encode(clip(5)), whole.encode(clip(5)), atol=1e-5, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_autoencoder_makes_the_same_by_three_graphs_each_way() -> None:
    whole, compiled, latents = build(WAN21), build(WAN21), latents_of(WAN21, 6)
    mm_models.compile_autoencoder(compiled, CompileSpec(enabled=True, backend=CompileBackend.AOT_EAGER))
    before = mm_models.compiled_graphs()
    for _ in range(2):
        torch.testing.assert_close(compiled.decode(latents), whole.decode(latents), atol=1e-5, rtol=0)
        torch.testing.assert_close(compiled.encode(clip(21)), whole.encode(clip(21)), atol=1e-5, rtol=0)
    assert mm_models.compiled_graphs() - before == 3 + 3


def test_only_networks_are_compiled() -> None:
    weightless = build(DctAutoencoderSpec(latent_channels=12))
    with pytest.raises(UserError, match=r"spec\.runtime\.compile_autoencoder: is True, but the autoencoder"):
        mm_models.compile_autoencoder(weightless, CompileSpec(enabled=True))
