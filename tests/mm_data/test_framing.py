"""Which size a clip gets and which part of it is seen, by numbers written by hand."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from mm_config.specs.data import BucketSpec, Resize
from mm_data.records import Shape
from mm_data.transforms.framing import Framing, framing, size_of
from mm_data.transforms.grid import Grid

WIDE = Shape(49, 480, 832)


def test_a_stretched_clip_gets_the_size_of_its_batch(data_spec):
    assert size_of(data_spec(height=480, width=832), 1080, 1920) == (480, 832)
    assert framing(data_spec(), 1080, 1920, WIDE, "") == Framing(480, 832, 0, 0, 480, 832, False)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (720, 1280, (480, 853, 0, 10, 480, 832)),
        (1080, 1920, (480, 853, 0, 10, 480, 832)),
        (1920, 1080, (1479, 832, 500, 0, 480, 832)),
        (240, 416, (480, 832, 0, 0, 480, 832)),
        (482, 832, (482, 832, 1, 0, 480, 832)),
    ],
)
def test_a_crop_covers_the_size_and_keeps_the_middle(data_spec, height, width, expected):
    found = framing(data_spec(resize=Resize.CENTER_CROP), height, width, WIDE, "")
    assert attrs.astuple(found) == (*expected, False)


def test_a_random_crop_and_a_flip_follow_from_the_draw_alone(data_spec):
    data = data_spec(resize=Resize.RANDOM_CROP, flip_share=0.25)
    found = [framing(data, 720, 1280, WIDE, f"0/5/{epoch}") for epoch in range(2000)]
    assert found == [framing(data, 720, 1280, WIDE, f"0/5/{epoch}") for epoch in range(2000)]
    assert {one.top for one in found} == {0} and {one.left for one in found} == set(range(22))
    flips = np.array([one.flip for one in found])
    # 500 of 2000, by a standard deviation of 19; and crops of mirrored clips are as the others'.
    assert 420 < flips.sum() < 580
    lefts = np.array([one.left for one in found])
    assert abs(lefts[flips].mean() - 10.5) < 1.5 and abs(lefts[~flips].mean() - 10.5) < 1


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (480, 832, (480, 832)),
        # 720 x 1280 has 2.307692 times the pixels: int(720 / 1.519109) = 473, int(1280 / 1.519109) = 842.
        (720, 1280, (464, 832)),
        (1080, 1920, (464, 832)),
        (1920, 1080, (832, 464)),
        (300, 500, (288, 496)),
        (1024, 1024, (624, 624)),
        (15, 200, "a side shorter than data.size_multiple"),
    ],
)
def test_by_area_a_clip_keeps_its_aspect_and_is_never_enlarged(data_spec, height, width, expected):
    data = data_spec(height=480, width=832, resize=Resize.AREA)
    assert size_of(data, height, width) == expected
    if not isinstance(expected, str):
        assert framing(data, height, width, Shape(1, *expected), "").crop_height == expected[0]


def test_the_multiple_is_the_specs_or_that_of_a_token(data_spec):
    data = data_spec(height=480, width=832, resize=Resize.AREA)
    assert size_of(data, 720, 1280, Grid(pixels=32)) == (448, 832)
    # 720 and 1280 times 0.658281 are 473.96 and 842.60, both rounded down.
    assert size_of(data, 720, 1280, Grid(pixels=1)) == (473, 842)
    assert size_of(attrs.evolve(data, size_multiple=8), 720, 1280) == (472, 840)


def test_filters_say_who_took_a_clip(data_spec):
    data = data_spec(max_aspect_ratio=2.0, min_pixels=100_000)
    assert size_of(data, 400, 800) == (64, 128)
    assert size_of(data, 400, 801) == size_of(data, 801, 400) == "more elongated than data.max_aspect_ratio"
    assert size_of(data, 300, 333) == "fewer pixels than data.min_pixels"


def test_by_area_the_filters_are_asked_of_the_cut_size_as_mindspeed_does(data_spec):
    data = data_spec(height=480, width=832, resize=Resize.AREA, min_pixels=480 * 832 // 4)
    assert size_of(data, 240, 426) == (240, 416)
    # 240 x 426 pixels are more than a quarter, 224 x 416 are fewer.
    assert size_of(data, 239, 430) == "fewer pixels than data.min_pixels"
    elongated = attrs.evolve(data, max_aspect_ratio=1.75)
    assert size_of(elongated, 240, 426) == (240, 416)


def test_a_clip_goes_to_the_bucket_of_the_nearest_aspect_ratio(data_spec):
    sizes = [(480, 832), (832, 480), (240, 416), (512, 512)]
    buckets = tuple(BucketSpec(num_frames=1, height=height, width=width) for height, width in sizes)
    data = data_spec(buckets=buckets)
    assert size_of(data, 1080, 1920) == (480, 832)
    assert size_of(data, 250, 430) == (240, 416)
    assert size_of(data, 100, 180) == (240, 416)
    assert size_of(data, 1920, 1080) == (832, 480)
    assert size_of(data, 900, 1000) == (512, 512)
