"""What a request chooses in place of its spec: sizes by hand, what is allowed, each mistake in one line."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from mm_config import replace
from mm_config.families import wan21, wan22
from mm_config.rules import first_step, request_problems, spec_of
from mm_config.rules.sampling import guidance_by_step, idle_settings
from mm_config.specs import (
    Expert,
    FeatureCacheSpec,
    GenerationRequest,
    ImageFit,
    RequestSetting,
    Resolution,
    SigmaTable,
    Solver,
    SparseAttentionSpec,
)
from tests.mm_config.breaking import found, only

T2V, TI2V = wan22.T2V_A14B.infer(), wan22.TI2V_5B.infer()
OPEN = replace(T2V, "requests_may_set", tuple(RequestSetting))
P480, P720 = Resolution.P480, Resolution.P720


def asked(spec: Any, **fields: Any) -> dict[str, str]:
    request = GenerationRequest(**{"prompt": "a cat", **fields})
    return {problem.path: problem.message for problem in request_problems(request, spec)}


def size(spec: Any, **fields: Any) -> tuple[int, int]:
    assert asked(spec, **fields) == {}
    made = spec_of(spec, GenerationRequest(prompt="a cat", **fields))
    return made.width, made.height


@pytest.mark.parametrize(
    ("resolution", "ratio", "wanted"),
    [
        # Width and height that Wan's own code offers, and both directions of each.
        (P480, "16:9", (832, 480)),
        (P480, "9:16", (480, 832)),
        (P480, "1:1", (624, 624)),
        (P720, "16:9", (1280, 720)),
        (P720, "9:16", (720, 1280)),
        (P720, "1:1", (960, 960)),
        # By hand: sqrt(399360 * 4 / 3) = 729.7 gives 720 columns, and 399360 / 720 = 554.7 gives 544 rows.
        (P480, "4:3", (720, 544)),
        (P480, "3:4", (544, 720)),
        # sqrt(399360 * 7 / 3) = 965.3 gives 960 columns, and 399360 / 960 = 416 rows.
        (P480, "21:9", (960, 416)),
        # What is not said is the spec's 832 x 480, which is meant as 16:9.
        (P720, None, (1280, 720)),
        (None, "9:16", (480, 832)),
        (None, None, (832, 480)),
    ],
)
def test_a_resolution_and_a_ratio_are_a_legal_size(
    resolution: Resolution | None, ratio: str | None, wanted: tuple[int, int]
) -> None:
    assert size(T2V, resolution=resolution, aspect_ratio=ratio) == wanted


def test_sizes_fill_the_tokens_of_their_network() -> None:
    # TI2V-5B has tokens of 32 x 32 pixels, and Wan's code makes 1280 x 704 of it.
    assert size(TI2V, resolution=P720, aspect_ratio="16:9") == (1280, 704)
    assert size(TI2V, resolution=P720) == (1280, 704)
    assert size(TI2V, resolution=P480) == (832, 480)


def test_a_spec_of_another_shape_keeps_it_at_another_area() -> None:
    # 2:1 is no usual ratio: sqrt(921600 * 2) = 1357.6 gives 1344 columns, 921600 / 1344 = 685.7 672 rows.
    wide = replace(T2V, {"height": 448, "width": 896})
    assert size(wide, resolution=P720) == (1344, 672)


def test_a_request_that_chooses_nothing_is_made_by_the_spec_itself() -> None:
    assert spec_of(T2V, GenerationRequest(prompt="a", seed=7)) is T2V


def test_everything_that_is_chosen_takes_the_place_of_the_spec() -> None:
    request = GenerationRequest(
        prompt="a",
        num_frames=49,
        height=720,
        width=1280,
        steps=20,
        solver=Solver.EULER,
        shift=5.0,
        guidance_high_noise=6.0,
        guidance_low_noise=2.0,
    )
    assert list(request_problems(request, OPEN)) == []
    changes = {
        "num_frames": 49,
        "height": 720,
        "width": 1280,
        "sampler.steps": 20,
        "sampler.solver": Solver.EULER,
        "sampler.shift": 5.0,
        "sampler.guidance_high_noise": 6.0,
        "sampler.guidance_low_noise": 2.0,
    }
    assert spec_of(OPEN, request) == replace(OPEN, changes)


def test_what_a_spec_does_not_leave_to_requests_is_refused_by_name() -> None:
    allowed = "but spec.requests_may_set allows size, frames"
    assert asked(T2V, steps=20, solver=Solver.EULER) == {
        "steps": f"is 20, {allowed}; add steps to it or set spec.sampler.steps or leave it out",
        "solver": f"is euler, {allowed}; add sampler to it or set spec.sampler.solver or leave it out",
    }
    closed = replace(T2V, "requests_may_set", ())
    assert asked(closed, num_frames=49, resolution=P720) == {
        "num_frames": "is 49, but spec.requests_may_set allows nothing; add frames to it or set "
        "spec.num_frames or leave it out",
        "resolution": "is 720p, but spec.requests_may_set allows nothing; add size to it or leave it out",
    }


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"num_frames": 82}, "num_frames", "82 frames are not of the form 4k+1; nearest: 81 or 85"),
        ({"num_frames": 83}, "num_frames", "83 frames are not of the form 4k+1; nearest: 81 or 85"),
        ({"height": 481}, "height", "481 pixels are no multiple of 16; nearest: 480 or 496"),
        ({"width": 830}, "width", "830 pixels are no multiple of 16; nearest: 816 or 832"),
        (
            {"resolution": P480, "height": 480},
            "resolution",
            "is given beside height 480, which it stands in place of; give one",
        ),
        (
            {"aspect_ratio": "4:3", "width": 480},
            "aspect_ratio",
            "is given beside width 480, which it stands in place of; give one",
        ),
        (
            {"aspect_ratio": "16x9"},
            "aspect_ratio",
            "expected width:height in whole numbers such as 16:9, got '16x9'",
        ),
        (
            {"aspect_ratio": "9999:1"},
            "aspect_ratio",
            "9999:1 is too elongated: not one token of 16x16 pixels fits",
        ),
        (
            {"aspect_ratio": "16:9", "video": "a.mp4", "strength": 0.5},
            "aspect_ratio",
            "is 16:9, but the video gives its own; leave it out, or set spec.image_fit to crop",
        ),
        (
            {"video": "a.mp4", "strength": 0.02},
            "strength",
            "0.02 of 40 steps is less than one; at least 0.025",
        ),
        ({"strength": 0.5}, "video", "is missing: strength 0.5 needs a video to put noise on"),
        ({"prompt": " "}, "prompt", "must say something, got ' '"),
    ],
)
def test_each_mistake_is_one_line(fields: dict[str, Any], path: str, said: str) -> None:
    assert asked(T2V, **fields) == {path: said}


def test_guidance_of_an_expert_that_is_not_there_is_refused() -> None:
    single = replace(wan21.T2V_1_3B.infer(), "requests_may_set", tuple(RequestSetting))
    assert asked(single, guidance_high_noise=3.0) == {}
    assert asked(single, guidance_low_noise=3.0) == {
        "guidance_low_noise": "is 3.0, but spec.boundary is None: there is no low-noise expert, and the "
        "single network's own is guidance_high_noise"
    }


def test_distilled_weights_take_no_guidance_of_a_request_nor_another_number_of_steps() -> None:
    distilled = replace(wan22.T2V_A14B_DISTILLED.infer(), "requests_may_set", tuple(RequestSetting))
    assert asked(distilled, guidance_high_noise=2.0) == {
        "guidance_high_noise": "is 2.0, but spec.distilled is True: the weights have their guidance built "
        "in; set it to 1.0"
    }
    assert asked(distilled, steps=8) == {"steps": "is 8, but timesteps lists 4; make them equal"}


def test_what_another_field_of_the_spec_can_not_have_is_told_at_what_was_chosen() -> None:
    sparse = replace(OPEN, "sparse_attention", SparseAttentionSpec(dense_steps=10))
    assert asked(sparse, steps=4) == {
        "steps": "spec.sparse_attention.dense_steps is 10, above spec.sampler.steps 4"
    }


def test_steps_of_a_feature_cache_are_those_of_its_spec() -> None:
    cached = replace(T2V, "feature_cache", FeatureCacheSpec(skipped=(20, 21)))
    assert asked(cached, video="a.mp4", strength=0.5) == {
        "strength": "leaves out steps that spec.feature_cache counts from; leave it out, or set "
        "spec.feature_cache to None"
    }
    assert asked(cached, num_frames=49) == {}


def test_a_strength_takes_whole_steps_as_diffusers_cuts_them() -> None:
    # int(50 * 0.58) is 28 in floating point, as in diffusers' get_timesteps.
    for steps, strength, first in ((10, 0.7, 3), (50, 0.58, 22), (4, 1.0, 0), (40, 0.999, 1)):
        made = replace(T2V, "sampler.steps", steps)
        request = GenerationRequest(prompt="a", video="a.mp4", strength=strength)
        assert first_step(made, request) == first
    assert first_step(T2V, GenerationRequest(prompt="a")) == 0


def test_an_image_that_is_cut_leaves_the_ratio_to_the_request() -> None:
    spec = wan22.I2V_A14B.infer()
    assert asked(spec, image="a.png", aspect_ratio="1:1").keys() == {"aspect_ratio"}
    assert asked(replace(spec, "image_fit", ImageFit.CROP), image="a.png", aspect_ratio="1:1") == {}
    assert asked(spec, image="a.png", resolution=P720) == {}


LISTED = {
    "boundary": 0.875,
    "sampler.steps": 4,
    "sampler.shift": 1.0,
    "sampler.sigmas": SigmaTable.LISTED,
    "sampler.timesteps": (1000, 900, 500, 100),
    "sampler.guidance_high_noise": 4.0,
    "sampler.guidance_low_noise": 3.0,
}


def within(least: float, most: float, **changes: Any) -> list[float]:
    spec = replace(T2V, {**LISTED, "sampler.guidance_interval": (least, most), **changes})
    return [guidance for _, guidance in guidance_by_step(spec)]


def test_guidance_works_inside_of_its_interval_of_noise_levels() -> None:
    assert within(0.0, 1.0) == [4.0, 4.0, 3.0, 3.0]
    assert within(0.1, 0.9) == [1.0, 4.0, 3.0, 3.0]
    assert within(0.2, 0.8) == [1.0, 1.0, 3.0, 1.0]


def test_an_interval_begins_before_it_ends() -> None:
    for interval in ((0.8, 0.2), (0.5, 0.5)):
        only(T2V, {"sampler.guidance_interval": interval}, "sampler.guidance_interval", "not below its end")


@pytest.mark.parametrize("solver", list(Solver))
def test_listed_timesteps_are_walked_by_every_solver(solver: Solver) -> None:
    assert found(T2V, {**LISTED, "sampler.solver": solver}) == {}


def idle(**changes: Any) -> dict[str, str]:
    spec = replace(T2V, {**LISTED, **{f"sampler.{name}": value for name, value in changes.items()}})
    found = idle_settings(attrs.evolve(spec, negative_prompt=""))
    return {one.path.removeprefix("spec.sampler."): one.message for one in found}


def test_settings_of_guidance_that_no_step_heeds_are_told() -> None:
    assert idle() == idle(guidance_interval=(0.2, 0.95), guidance_rescale=0.7) == {}
    outside = "but of this expert no step has a noise level from {} to {}"
    assert idle(guidance_interval=(0.0, 0.8)) == {
        "guidance_high_noise": f"is 4.0, {outside.format(0.0, 0.8)}",
    }
    assert idle(guidance_interval=(0.91, 0.99)).keys() == {
        "guidance_high_noise",
        "guidance_low_noise",
        "guidance_interval",
    }
    off = {"guidance_high_noise": 1.0, "guidance_low_noise": 1.0}
    assert idle(**off, guidance_rescale=0.7) == {
        "guidance_rescale": "is 0.7, which only a step with guidance uses; leave it at 0.0"
    }


def test_the_negative_prompt_is_read_where_a_request_guides_more_than_its_spec() -> None:
    off = {"sampler.guidance_high_noise": 1.0, "sampler.guidance_low_noise": 1.0, "negative_prompt": "blur"}
    spec = replace(OPEN, off)
    plain, guided = (GenerationRequest(prompt="a", guidance_high_noise=one) for one in (None, 2.0))
    assert [one.path for one in idle_settings(spec, (plain,))] == ["spec.negative_prompt"]
    assert list(idle_settings(spec, (plain, guided))) == []
    assert Expert.HIGH_NOISE in {expert for expert, _ in guidance_by_step(spec)}
