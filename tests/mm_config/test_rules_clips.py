"""Rules on clips: their sizes, buckets, what is read of them, and what is kept."""

from typing import Any

import pytest

from mm_config.specs.data import BucketSpec, Cache, CaptionSpec, ClipStart, PrecomputedSpec, Resize
from mm_config.specs.encoders import LatentMode
from tests.mm_config.breaking import TRAIN, WAN_1_3B, WAN_5B, WAN_FLF2V, WAN_I2V, found, only

FEATURES = PrecomputedSpec(name="features", empty_caption=True)


def bucket(num_frames: int = 81, height: int = 480, width: int = 832, batch: int | None = None) -> BucketSpec:
    return BucketSpec(num_frames=num_frames, height=height, width=width, batch_size=batch)


def test_sizes_of_the_families() -> None:
    only(WAN_1_3B, {"data.num_frames": 83}, "data.num_frames", "83 frames", "4k+1; nearest: 81 or 85")
    only(WAN_1_3B, {"data.height": 488}, "data.height", "no multiple of 16; nearest: 480 or 496")
    only(WAN_5B, {"data.height": 720}, "data.height", "no multiple of 32; nearest: 704 or 736")


@pytest.mark.parametrize("spec", [WAN_I2V, WAN_FLF2V])
def test_given_frames_leave_something_to_make(spec: Any) -> None:
    only(spec, {"data.num_frames": 1}, "data.num_frames", "leaves nothing to make", "at least 5")
    assert found(spec, {"data.num_frames": 5}) == {}
    assert found(WAN_1_3B, {"data.num_frames": 1}) == {}


def test_each_bucket_has_a_legal_size() -> None:
    buckets = (bucket(), bucket(83), bucket(height=490), bucket(width=5, num_frames=1))
    assert found(WAN_1_3B, {"data.buckets": buckets}) == {
        "spec.data.buckets.1.num_frames": "83 frames are not of the form 4k+1; nearest: 81 or 85",
        "spec.data.buckets.2.height": "490 pixels are no multiple of 16; nearest: 480 or 496",
        "spec.data.buckets.3.width": "5 pixels are no multiple of 16; nearest: 16",
    }


def test_sizes_outside_of_buckets_are_not_looked_at() -> None:
    assert found(WAN_1_3B, {"data.buckets": (bucket(),), "data.num_frames": 2, "data.height": 7}) == {}


def test_no_two_buckets_are_alike() -> None:
    buckets = (bucket(), bucket(49), bucket(batch=16))
    only(WAN_1_3B, {"data.buckets": buckets}, "data.buckets.2", "has the size of buckets.0")


def test_buckets_fix_frames_and_sizes() -> None:
    changes = {"data.buckets": (bucket(),), "data.min_num_frames": 5, "data.resize": Resize.AREA}
    wrong = found(WAN_1_3B, changes)
    assert wrong.keys() == {"spec.data.min_num_frames", "spec.data.resize"}
    assert "buckets say which numbers of frames" in wrong["spec.data.min_num_frames"]
    assert "buckets fix the sizes" in wrong["spec.data.resize"]


def test_the_least_frames_of_short_clips() -> None:
    some = {"data.drop_short_share": 0.0}
    assert found(WAN_1_3B, {**some, "data.min_num_frames": 5}) == {}
    only(WAN_1_3B, {**some, "data.min_num_frames": 7}, "data.min_num_frames", "4k+1; nearest: 5 or 9")
    only(WAN_1_3B, {**some, "data.min_num_frames": 85}, "data.min_num_frames", "above num_frames 81")
    only(WAN_1_3B, some, "data.drop_short_share", "which only min_num_frames uses; leave it at 1.0")
    only(WAN_1_3B, {"data.min_num_frames": 5}, "data.drop_short_share", "leaves out all the short clips")


def test_every_nth_frame_excludes_rates_and_speeds() -> None:
    nth = {"data.frame_interval": 2}
    assert found(WAN_1_3B, nth) == {}
    only(
        WAN_1_3B, {**nth, "data.speed_factor": 2.0}, "data.speed_factor", "every n-th frame; leave it at 1.0"
    )
    only(WAN_1_3B, {**nth, "data.fps": 24.0}, "data.fps", "whatever their rate; leave it at 16.0")


def test_sizes_by_area_are_multiples_of_the_cell() -> None:
    area = {"data.resize": Resize.AREA}
    assert found(WAN_1_3B, area) == found(WAN_1_3B, {**area, "data.size_multiple": 32}) == {}
    path = "data.size_multiple"
    only(WAN_1_3B, {**area, path: 24}, path, "24 pixels are no multiple of 16; nearest: 16 or 32")
    only(WAN_1_3B, {**area, path: 1024}, path, "more than height x width; at most 624")
    only(WAN_1_3B, {path: 32}, path, "is 32, which only resize = area uses; leave it at None")


def test_rendered_clips_are_not_all_left_out() -> None:
    assert found(TRAIN, {"data.min_pixels": 64 * 64}) == {}
    only(TRAIN, {"data.min_pixels": 64 * 64 + 1}, "data.min_pixels", "renders 4096 pixels: no clip is left")


def test_rendered_clips_give_what_the_data_asks_for() -> None:
    assert found(TRAIN, {"data.num_frames": 21, "data.fps": 16.0}) == {
        "spec.data.num_frames": "21 frames are asked for, but dataset.num_frames renders 17",
        "spec.data.fps": "is 16.0, but dataset.fps renders 8; make them equal",
    }
    nth = {"data.frame_interval": 2, "data.fps": 16.0}
    only(TRAIN, nth, "data.num_frames", "33 frames are asked for, but dataset.num_frames renders 17")
    assert found(TRAIN, {**nth, "data.num_frames": 9}) == {}
    buckets = (bucket(17, 64, 64), bucket(21, 64, 64))
    only(TRAIN, {"data.buckets": buckets}, "data.buckets.1.num_frames", "21 frames are asked for")
    short = {"data.num_frames": 33, "data.min_num_frames": 17, "data.drop_short_share": 0.0}
    assert found(TRAIN, short) == {}


@pytest.mark.parametrize(
    ("changes", "path", "part"),
    [
        ({"data.start": ClipStart.RANDOM}, "data.start", "choose head or middle"),
        ({"data.resize": Resize.RANDOM_CROP}, "data.resize", "choose center_crop"),
        ({"data.flip_share": 0.5}, "data.flip_share", "set it to 0.0"),
    ],
)
def test_kept_latents_are_the_same_in_every_epoch_or_have_stated_variants(
    changes: dict[str, Any], path: str, part: str
) -> None:
    assert found(WAN_1_3B, changes) == {}
    cached = {**changes, "data.cache": Cache.LATENTS}
    only(WAN_1_3B, cached, path, part, "data.cache = latents keeps one encoding per clip", "cache to none")
    only(WAN_1_3B, {**changes, "data.precomputed": FEATURES}, path, part, "precomputed latents are fixed")
    assert found(WAN_1_3B, {**cached, "data.variants": 4}) == {}
    assert found(WAN_1_3B, {**changes, "data.precomputed": FEATURES, "data.variants": 4}) == {}


def test_variants_are_of_what_is_kept() -> None:
    only(WAN_1_3B, {"data.variants": 4}, "data.variants", "is 4, but nothing is kept")


def test_what_does_not_change_between_epochs_can_be_kept() -> None:
    steady = {
        "data.start": ClipStart.MIDDLE,
        "data.resize": Resize.CENTER_CROP,
        "autoencoder.latent_mode": LatentMode.SAMPLE,
    }
    assert found(WAN_1_3B, {**steady, "data.cache": Cache.LATENTS, "data.flip_share": 1.0}) == {}
    assert found(WAN_1_3B, {**steady, "data.precomputed": FEATURES}) == {}
    text = PrecomputedSpec(name="features", latents=False, empty_caption=True)
    assert found(WAN_1_3B, {"data.precomputed": text, "data.start": ClipStart.RANDOM}) == {}


def test_a_template_has_one_place_for_the_caption() -> None:
    how = CaptionSpec(templates=("xyz, {caption}", "xyz", "{caption} {caption}"))
    wrong = found(WAN_1_3B, {"data.captions": how})
    assert list(wrong) == ["spec.data.captions.templates.1", "spec.data.captions.templates.2"]
    assert "must have {caption} once, got 'xyz'" in str(wrong)
    assert found(WAN_1_3B, {"data.captions": CaptionSpec(templates=("{x} {caption}",))}) == {}


def test_precomputed_latents_leave_nothing_to_cache() -> None:
    changes = {"data.precomputed": FEATURES, "data.cache": Cache.LATENTS}
    only(WAN_1_3B, changes, "data.cache", "there is nothing to keep; set it to none")


def test_caption_dropout_needs_the_features_of_the_empty_caption() -> None:
    features = PrecomputedSpec(name="features")
    only(
        WAN_1_3B,
        {"data.precomputed": features},
        "data.caption_dropout",
        "is 0.1, but precomputed.empty_caption is False",
        "set it to 0.0",
    )
    assert found(WAN_1_3B, {"data.precomputed": features, "data.caption_dropout": 0.0}) == {}
    assert found(WAN_1_3B, {"data.precomputed": FEATURES}) == {}
    latents = PrecomputedSpec(name="features", text=False)
    assert found(WAN_1_3B, {"data.precomputed": latents}) == {}


def test_features_hold_something() -> None:
    nothing = PrecomputedSpec(name="features", latents=False, text=False)
    only(WAN_1_3B, {"data.precomputed": nothing}, "data.precomputed.latents", "the features hold nothing")
    empty = PrecomputedSpec(name="features", text=False, empty_caption=True)
    only(WAN_1_3B, {"data.precomputed": empty}, "data.precomputed.empty_caption", "set it to False")
