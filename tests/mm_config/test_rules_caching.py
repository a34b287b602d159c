"""Feature caches that can't be: one line for each skipped step that may not be."""

from __future__ import annotations

import pytest

from mm_config import replace, rules
from mm_config.families.tiny import TINY
from mm_config.planning.plan import plan
from mm_config.specs import (
    FeatureCacheSpec,
    GenerationRequest,
    InferSpec,
    RandomWeights,
    RequestSetting,
    SamplesSpec,
    WanTransformerSpec,
)

SPEC = replace(
    TINY.infer(
        high_noise=RandomWeights(), low_noise=RandomWeights(), samples=SamplesSpec(prompts=("a red circle",))
    ),
    {"sampler.steps": 12, "boundary": 0.93, "num_frames": 17, "height": 64, "width": 64},
)
"""Six steps of each expert."""


def with_cache(skipped: tuple[int, ...], **changes: object) -> InferSpec:
    cache = replace(FeatureCacheSpec(skipped=skipped), changes)
    return replace(SPEC, "feature_cache", cache)


def found(spec: InferSpec) -> dict[str, str]:
    return {one.path.removeprefix("spec.feature_cache."): one.message for one in rules.problems(spec)}


@pytest.mark.parametrize("skipped", [(), (2, 3), (2, 3, 5, 8, 9, 11)])
def test_steps_that_may_be_skipped(skipped: tuple[int, ...]):
    assert found(with_cache(skipped)) == {}
    assert found(replace(SPEC, "feature_cache", FeatureCacheSpec())) == {}


@pytest.mark.parametrize(
    ("skipped", "changes", "expected"),
    [
        ((12,), {}, {"skipped.0": "is 12, but spec.sampler.steps is 12: they are 0 to 11"}),
        (
            (3, 3, 2),
            {},
            {
                "skipped.1": "is 3, not above 3 before it: steps must rise",
                "skipped.2": "is 2, not above 3 before it: steps must rise",
            },
        ),
        (
            (1, 7),
            {},
            {
                "skipped.0": "is 1, one of the first 2 of the 6 steps of high_noise, which dense_share 0.2 "
                "has computed",
                "skipped.1": "is 7, one of the first 2 of the 6 steps of low_noise, which dense_share 0.2 "
                "has computed",
            },
        ),
        (
            (6,),
            {"dense_share": 0.0, "derivatives": 0},
            {
                "skipped.0": "is 6, which has 0 computed steps of low_noise with guidance before it; "
                "derivatives 0 needs 1"
            },
        ),
        (
            (2,),
            {"derivatives": 2},
            {
                "skipped.0": "is 2, which has 2 computed steps of high_noise with guidance before it; "
                "derivatives 2 needs 3"
            },
        ),
        (
            (2, 3, 4),
            {},
            {"skipped.2": "is 4, but the 2 steps before it are skipped, which max_skipped allows"},
        ),
    ],
)
def test_steps_that_may_not_be_skipped(
    skipped: tuple[int, ...], changes: dict[str, object], expected: dict[str, str]
):
    assert found(with_cache(skipped, **changes)) == expected


def test_what_requests_may_not_change_beside_a_cache():
    both = (RequestSetting.SIZE, RequestSetting.STEPS, RequestSetting.SAMPLER)
    assert found(replace(with_cache((2,)), "requests_may_set", both)) == {
        "skipped": "are steps of spec.sampler, which requests could change; take steps and sampler out of "
        "spec.requests_may_set"
    }
    request = GenerationRequest(prompt="a red circle", video="x.mp4", strength=0.5)
    assert "strength" in {one.path for one in rules.request_problems(request, with_cache((2,)))}
    assert "feature_cache" not in str([*rules.request_problems(request, SPEC)])


def test_a_plan_says_whether_it_knows_the_steps():
    unknown, known = (replace(SPEC, "feature_cache", FeatureCacheSpec(skipped=one)) for one in (None, (2,)))
    note = "every step is counted whole; which ones the feature cache skips is not known yet"
    assert note in plan(unknown).notes
    assert note not in plan(known).notes
    # Twelve steps of two passes; one step leaves out the blocks of both.
    parts = SPEC.model.flops_by_part((5, 8, 8), SPEC.text_encoder.max_tokens)
    assert isinstance(SPEC.model, WanTransformerSpec)
    d, text = SPEC.model.hidden_size, SPEC.text_encoder.max_tokens
    keys_and_values = SPEC.model.num_layers * text * 4 * d * d
    blocks = sum(parts[one] for one in parts if one not in ("ends", "time", "text")) + keys_and_values
    assert plan(unknown).work.step_flops - plan(known).work.step_flops == 2 * blocks
