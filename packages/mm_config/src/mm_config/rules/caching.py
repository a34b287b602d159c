"""Rules on feature caches: which denoising steps may skip a network's blocks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from mm_config.rules.sampling import guidance_by_step
from mm_config.rules.wording import counted
from mm_config.schema.errors import Problem
from mm_config.specs.infer import InferSpec
from mm_config.specs.requests import RequestSetting


def cache_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    """Skipped steps rise, are the sampler's, and each of them may be skipped.

    Args:
        spec: The inference spec.
        path: Where it stands, for messages that name a second field.
    """
    cache = spec.feature_cache
    if cache is None or not cache.skipped:
        return
    steps, skipped = spec.sampler.steps, cache.skipped
    for index, step in enumerate(skipped):
        where = f"feature_cache.skipped.{index}"
        if step >= steps:
            yield Problem(where, f"is {step}, but {path}.sampler.steps is {steps}: they are 0 to {steps - 1}")
        elif index and step <= skipped[index - 1]:
            yield Problem(where, f"is {step}, not above {skipped[index - 1]} before it: steps must rise")
        elif why := why_computed(spec, step, skipped):
            yield Problem(where, f"is {step}, {why}")
    changing = [
        setting.value
        for setting in (RequestSetting.STEPS, RequestSetting.SAMPLER)
        if setting in spec.requests_may_set
    ]
    if changing:
        said = " and ".join(changing)
        yield Problem(
            "feature_cache.skipped",
            f"are steps of {path}.sampler, which requests could change; take {said} out of "
            f"{path}.requests_may_set",
        )


def why_computed(spec: InferSpec, step: int, skipped: Collection[int]) -> str | None:
    """Why a step can't skip the blocks, as the end of a sentence; None where it can.

    Args:
        spec: With a feature cache.
        step: One of its sampler's.
        skipped: Those that are skipped; only steps before this one count.
    """
    cache = spec.feature_cache
    assert cache is not None, "only a cache skips steps"
    plan = guidance_by_step(spec)
    expert, guidance = plan[step]
    own = [index for index, (worker, _) in enumerate(plan) if worker is expert]
    # 0.2 * 15 is a little above 3.
    dense = math.ceil(round(cache.dense_share * len(own), 9))
    if step in own[:dense]:
        return (
            f"one of the first {dense} of the {len(own)} steps of {expert.value}, which dense_share "
            f"{cache.dense_share} has computed"
        )
    # A guided step needs guesses for the negative prompt as well, so only guided steps count.
    before = [
        index
        for index in own
        if index < step and index not in skipped and (guidance == 1 or plan[index][1] > 1)
    ]
    if len(before) <= cache.derivatives:
        of = f"of {expert.value}{' with guidance' if guidance > 1 else ''}"
        return (
            f"which has {counted(len(before), 'computed step')} {of} before it; derivatives "
            f"{cache.derivatives} needs {cache.derivatives + 1}"
        )
    if all(index in skipped for index in range(step - cache.max_skipped, step)):
        return f"but the {counted(cache.max_skipped, 'step')} before it are skipped, which max_skipped allows"
    return None
