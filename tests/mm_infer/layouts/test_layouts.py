"""Every layout of ranks makes the videos of one process."""

from __future__ import annotations

import pytest
import torch

from mm_config.specs import FeatureCacheSpec, RandomWeights, WanAutoencoderSpec
from mm_config.specs.parallel import CompileBackend, CompileSpec
from tests.mm_infer.layouts.cells import ALONE, KINDS, Layout, layouts, name_of
from tests.mm_infer.layouts.conftest import Ranks, difference
from tests.mm_infer.layouts.making import made
from tests.mm_infer.layouts.mistakes import MISTAKES

TWO = {name_of(layout): layout for layout in layouts(2)}
FOUR = {name_of(layout): layout for layout in layouts(4)}
QUICK = [
    ("data2", "text"),
    ("guidance2", "text"),
    ("guidance2", "image branch"),
    ("ring2", "clean frame"),
    ("ulysses2", "first frame"),
    ("tensor2", "image branch"),
    ("ulysses2 fsdp", "text"),
    ("guidance2 fsdp", "clean frame"),
]


def check(ranks: Ranks, number: int, layout: Layout, kind: str) -> None:
    """Holds every rank's videos, and the latents that it ended with, against those of one process."""
    expected = ranks.alone(kind)
    assert expected["videos"].std() > 0.05
    found = ranks.by(number, ranks.order(kind, layout=layout))
    for rank, one in enumerate(found):
        print(f"rank {rank}: {one['threads']} threads")
        assert difference(one, expected) <= 1e-5, (rank, name_of(layout), kind)
        group = rank // (number // layout["data"])
        for ours, theirs in zip(one["latents"], expected["latents"][group :: layout["data"]], strict=True):
            assert abs(ours - theirs).max() <= 1e-5 * abs(theirs).max()
        if layout["fsdp"] or layout["tensor"] > 1:
            assert one["share"] < 0.8


@pytest.mark.parametrize(("layout", "kind"), QUICK)
def test_two_ranks_make_the_videos_of_one(ranks: Ranks, layout: str, kind: str) -> None:
    check(ranks, 2, TWO[layout], kind)


def test_so_they_do_where_latents_are_decoded_by_a_call_of_their_own(ranks: Ranks) -> None:
    found = ranks.by(2, ranks.order("text", layout=TWO["data2"], in_parts=True))
    assert max(difference(one, ranks.alone("text")) for one in found) <= 1e-5


@pytest.mark.parametrize("layout", ["guidance2 fsdp", "ulysses2", "tensor2"])
def test_so_they_do_with_a_feature_cache(ranks: Ranks, layout: str) -> None:
    """The third of three guided steps skips the blocks, and what they share."""
    more = {"feature_cache": FeatureCacheSpec(dense_share=0.5, skipped=(2,))}
    expected = made(ranks.order("text", **more))
    assert difference(expected, ranks.alone("text")) > 1e-3
    for one in ranks.by(2, ranks.order("text", layout=TWO[layout], **more)):
        assert difference(one, expected) <= 1e-5


@pytest.mark.parametrize("layout", ["guidance2", "ring2", "ulysses2", "ulysses2 fsdp", "tensor2"])
def test_so_they_do_where_blocks_are_compiled(ranks: Ranks, layout: str) -> None:
    """Collectives lie between what is compiled, or in it."""
    how = CompileSpec(enabled=True, backend=CompileBackend.AOT_EAGER)
    torch._dynamo.reset()
    for one in ranks.by(2, ranks.order("text", layout=TWO[layout], **{"runtime.compile": how})):
        assert difference(one, ranks.alone("text")) <= 1e-5


@pytest.mark.parametrize("tiling", [False, True], ids=["latent frames", "tiles"])
def test_so_they_do_where_they_share_the_autoencoder(ranks: Ranks, tiling: bool) -> None:
    """The network is given a first frame, whose video is encoded together, too."""
    small = WanAutoencoderSpec(
        weights=RandomWeights(seed=1),
        latent_channels=9,
        base_dim=8,
        dim_mult=(1, 1, 1, 1),
        num_res_blocks=1,
        tiling=tiling,
        tile_size=(48, 48),
        tile_stride=(48, 32),
    )
    expected = made(ranks.order("first frame", autoencoder=small))
    asked = {"autoencoder": small, "runtime.parallel.autoencoder": True}
    for one in ranks.by(2, ranks.order("first frame", layout=TWO["ulysses2"], **asked)):
        assert difference(one, expected) <= 1e-5
        assert expected["videos"].std() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", TWO)
def test_so_they_do_in_each_layout(ranks: Ranks, layout: str, kind: str) -> None:
    check(ranks, 2, TWO[layout], kind)


@pytest.mark.slow
@pytest.mark.parametrize("layout", FOUR)
def test_so_do_four_ranks(ranks: Ranks, layout: str) -> None:
    given = list(KINDS)[1 + list(FOUR).index(layout) % (len(KINDS) - 1)]
    for kind in ("text", given):
        check(ranks, 4, FOUR[layout], kind)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_seen(ranks: Ranks, mistake: str) -> None:
    layout, _ = MISTAKES[mistake]
    found = ranks.by(2, ranks.order("text", layout=TWO[layout], mistake=mistake))
    apart = max(difference(one, ranks.alone("text")) for one in found)
    print(f"{mistake}: {apart:.1e}")
    assert apart > 1e-3


def test_the_layouts_are_all_there_are() -> None:
    """Two are placed on five axes, or two pairs of them where guidance takes no more than one."""
    plain = [layout for layout in FOUR.values() if not layout["fsdp"]]
    assert (len([one for one in TWO.values() if not one["fsdp"]]), len(plain)) == (5, 14)
    assert name_of(ALONE) == ""
