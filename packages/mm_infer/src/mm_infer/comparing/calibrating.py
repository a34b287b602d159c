"""Which steps a feature cache may skip: those in which what the blocks add changes little.

Measured while the exact spec makes its videos. With F(k) what an expert's blocks add to the stream in step
k, of one video and one branch of guidance, a step's change is |F(k) - F(k-1)| / |F(k-1)| in the 2-norm: its
mean over the videos, of the two branches the larger one. A step is skipped where the rules allow it and the
changes since the last computed step, its own included, come to no more than the threshold.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from functools import partial

import attrs
from torch import Tensor, nn

from mm_config.rules import why_computed
from mm_config.specs import Expert, InferSpec
from mm_infer.caching import branches_of
from mm_infer.passes import Branch, Forward, Pass
from mm_models import stream_seen


@attrs.frozen(eq=False)
class Changes:
    """The changes of all steps, gathered over batches by what `around` gives."""

    found: dict[tuple[int, Branch], list[float]] = attrs.field(factory=lambda: defaultdict(list))
    """Of each step and branch, the change of each video."""

    def around(self, forward: Forward, networks: Mapping[Expert, nn.Module]) -> Forward:
        """The same passes of one batch, which are measured."""
        before: dict[Branch, tuple[Pass, Tensor]] = {}

        def passed(which: Pass, *inputs: Tensor) -> Tensor:
            with stream_seen(networks[which.expert], partial(measure, which)):
                return forward(which, *inputs)

        def measure(which: Pass, stream_BSD: Tensor, after_BSD: Tensor) -> None:
            branches = branches_of(which)
            for branch, added_BSD in zip(
                branches, (after_BSD - stream_BSD).chunk(len(branches)), strict=True
            ):
                last, earlier_BSD = before.get(branch, (None, added_BSD))
                if last is not None and (last.step, last.expert) == (which.step - 1, which.expert):
                    self.found[which.step, branch] += _changes(earlier_BSD, added_BSD)
                before[branch] = which, added_BSD

        return passed

    def of_steps(self) -> dict[int, float]:
        """Each step's change; none of an expert's first step."""
        steps: dict[int, float] = {}
        for (step, _), changes in self.found.items():
            steps[step] = max(steps.get(step, 0.0), sum(changes) / len(changes))
        return steps


def steps_to_skip(spec: InferSpec, changes: Mapping[int, float]) -> tuple[int, ...]:
    """The steps that a spec's feature cache skips by their changes; those without one are computed."""
    assert spec.feature_cache is not None, "only a cache skips steps"
    skipped: list[int] = []
    total = 0.0
    for step in range(spec.sampler.steps):
        total += changes.get(step, math.inf)
        if total <= spec.feature_cache.threshold and why_computed(spec, step, skipped) is None:
            skipped.append(step)
        else:
            total = 0.0
    return tuple(skipped)


def _changes(earlier_BSD: Tensor, later_BSD: Tensor) -> list[float]:
    apart, size = (one.float().flatten(1).norm(dim=1) for one in (later_BSD - earlier_BSD, earlier_BSD))
    return (apart / size.clamp_min(1e-30)).tolist()
