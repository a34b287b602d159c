"""Which bucket a clip goes to, and what takes the others."""

from __future__ import annotations

from fractions import Fraction

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_config.schema import UserError
from mm_config.specs.data import Resize
from mm_data import make_plan
from mm_data.plan import sorting
from mm_data.plan.measuring import known_of
from mm_data.plan.sizing import Outcomes
from mm_data.plan.sorting import sort_clips
from mm_data.records import Shape
from mm_data.transforms.grid import WAN
from tests.mm_data.plans import bucket, measured, spec

GRID = (bucket(1, 32, 32), bucket(17, 32, 64), bucket(17, 64, 32), bucket(81, 32, 64))
HAND = {
    (1, 100, 100): Shape(1, 32, 32),
    (1, 100, 400): Shape(1, 32, 32),
    (16, 100, 200): Shape(17, 32, 64),  # 1.0 s: its end is the 17th frame.
    (15, 100, 200): None,
    (79, 100, 200): Shape(17, 32, 64),
    (80, 100, 200): Shape(81, 32, 64),  # 5.0 s, whose end is the 81st frame.
    (500, 200, 100): Shape(17, 64, 32),
    (500, 100, 120): Shape(81, 32, 64),
    (500, 120, 100): Shape(17, 64, 32),
}
"""Frames at 16 frames/s, height and width of clips, and the shape that each gets in `GRID`."""


def shapes_of(data, dataset):
    found = sort_clips(data, dataset, 3, WAN, None)
    return {int(index): shape for shape, indices in found.members.items() for index in indices}, found


def test_clips_go_to_the_nearest_ratio_and_the_most_frames_that_they_fill():
    by_index, found = shapes_of(spec(buckets=GRID), measured(list(HAND)))
    assert [by_index.get(n) for n in range(len(HAND))] == list(HAND.values())
    assert found.left_out == [("shorter than every bucket: 17 frames at 16 frames/s", 1, [3])]


def test_videos_give_one_frame_where_all_buckets_have_one():
    by_index, _ = shapes_of(spec(buckets=(bucket(1, 32, 32),)), measured([(9, 9, 9), (1, 9, 9)]))
    assert by_index == {0: Shape(1, 32, 32), 1: Shape(1, 32, 32)}


def test_images_without_a_bucket_of_one_frame_are_left_out():
    _, found = shapes_of(spec(buckets=(bucket(5, 32, 32),)), measured([(1, 9, 9), (9, 9, 9)]))
    assert found.left_out == [("an image, and no bucket has one frame", 1, [0])]


@st.composite
def grids(draw):
    sizes = draw(
        st.lists(st.tuples(st.sampled_from([16, 32, 48]), st.sampled_from([16, 32, 48])), min_size=1)
    )
    frames = st.lists(st.sampled_from([1, 5, 9, 17]), min_size=1, max_size=3)
    return tuple(bucket(*one) for one in sorted({(f, h, w) for h, w in sizes for f in draw(frames)}))


@given(
    buckets=grids(),
    clips=st.lists(st.tuples(st.integers(1, 40), st.integers(8, 60), st.integers(8, 60)), min_size=1),
    fps=st.sampled_from([Fraction(16), Fraction(24), Fraction(30000, 1001)]),
)
@settings(max_examples=80, deadline=None)
def test_buckets_equal_a_plain_search(buckets, clips, fps):
    by_index, _ = shapes_of(spec(buckets=buckets), measured(clips, fps=fps))
    assert [by_index.get(n) for n in range(len(clips))] == [searched(buckets, clip, fps) for clip in clips]


def searched(buckets, clip, fps):
    """A clip's shape by looking at every bucket, in exact fractions."""
    frames, height, width = clip
    fills = 1 if frames == 1 else int((frames / fps + Fraction(1, 1000)) * 16) + 1
    has_videos = any(one.num_frames > 1 for one in buckets)
    fitting = [
        one
        for one in buckets
        if one.num_frames <= fills and (one.num_frames > 1 or frames == 1 or not has_videos)
    ]
    if frames == 1:
        fitting = [one for one in buckets if one.num_frames == 1]

    def order(one):
        ratio = Fraction(one.height * width, one.width * height)
        pixels, own = one.height * one.width, height * width
        return (
            max(ratio, 1 / ratio),
            pixels > own,
            -pixels if pixels <= own else pixels,
            one.height,
            -one.num_frames,
        )

    best = min(fitting, key=order, default=None)
    return best and Shape(best.num_frames, best.height, best.width)


def test_short_clips_give_as_many_frames_as_fit():
    data = spec(num_frames=17, height=32, width=32, min_num_frames=5, drop_short_share=0.0)
    by_index, found = shapes_of(data, measured([(20, 9, 9), (11, 9, 9), (8, 9, 9), (4, 9, 9), (3, 9, 9)]))
    assert [by_index.get(n) and by_index[n].num_frames for n in range(5)] == [17, 9, 9, 5, None]
    assert found.left_out == [("shorter than 5 frames at 16 frames/s", 1, [4])]


def test_the_share_of_short_clips_is_left_out_by_seed():
    data = spec(num_frames=17, height=32, width=32, min_num_frames=5, drop_short_share=0.25)
    dataset = measured([(8, 9, 9)] * 4000 + [(20, 9, 9)] * 10)
    found = [sort_clips(data, dataset, seed, WAN, None) for seed in (1, 1, 2)]
    (reason, count, _), *others = found[0].left_out
    assert not others
    assert reason == "shorter than data.num_frames, of which a share of 0.25 is left out"
    assert abs(count - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5
    kept = [list(one.members[Shape(9, 32, 32)]) for one in found]
    assert kept[0] == kept[1] != kept[2]
    assert all(len(one.members[Shape(17, 32, 32)]) == 10 for one in found)


def test_area_groups_clips_by_their_own_size():
    data = spec(num_frames=5, height=64, width=64, resize=Resize.AREA, size_multiple=16, min_pixels=400)
    by_index, found = shapes_of(data, measured([(9, 64, 64), (9, 32, 128), (9, 400, 100), (9, 16, 16)]))
    # 400x100 has 40,000 pixels; times sqrt(4096 / 40000) = 0.32 it is 128x32.
    assert by_index == {0: Shape(5, 64, 64), 1: Shape(5, 32, 128), 2: Shape(5, 128, 32)}
    assert found.left_out == [("fewer pixels than data.min_pixels", 1, [3])]


def test_an_empty_result_says_which_filter_took_how_many():
    data = spec(buckets=(bucket(17, 32, 32),), max_aspect_ratio=2.0)
    with pytest.raises(UserError) as caught:
        make_plan(data, measured([(3, 9, 9)] * 3 + [(90, 9, 90)] * 2), 0)
    assert str(caught.value) == (
        "spec.data: no clip of 5 is left: 3 x shorter than every bucket: 17 frames at 16 frames/s; "
        "2 x more elongated than data.max_aspect_ratio"
    )


def test_a_large_sorting_is_kept_and_equals_one_in_memory(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    dataset = measured([(f, h, w) for f, h, w in random.integers(8, 90, (100, 3)).tolist()])
    data = spec(buckets=GRID, max_aspect_ratio=3.0)
    columns = known_of(data, dataset, None).columns
    in_memory = sort_clips(data, dataset, 0, WAN, None)
    assert all(list(rows) == sorted(rows) for rows in in_memory.members.values())
    monkeypatch.setattr(sorting, "CHUNK", 7)
    for _ in range(2):
        kept = sorting._kept(Outcomes(data, WAN, "k"), columns, tmp_path / "kept")
        assert {shape: list(rows) for shape, rows in kept.members.items()} == {
            shape: list(rows) for shape, rows in in_memory.members.items()
        }
        assert kept.left_out == in_memory.left_out
    names = {sorting._name(one, WAN, "k", "d") for one in (data, attrs.evolve(data, max_aspect_ratio=2.0))}
    assert len(names) == 2
    assert sorting._name(attrs.evolve(data, batch_size=9), WAN, "k", "d") in names
