"""A feature cache: in steps that are fixed in advance a guess takes the place of a network's blocks.

What the blocks add to the stream, F, changes slowly from step to step, as MagCache (arXiv 2506.09045) has it.
It is guessed as by TaylorSeer (arXiv 2503.06923), from finite differences over the steps that are computed:
with k the latest of them and j the one before,

    D0(k) = F(k),  D[i+1](k) = (D[i](k) - D[i](j)) / (k - j),  F(s) = sum over i of D[i](k) (s - k)^i / i!

Each expert and each branch of guidance has its own; the first ones of another expert begin anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import factorial

import attrs
import torch
from torch import Tensor, nn

from mm_config.specs import Expert, FeatureCacheSpec
from mm_infer.passes import Branch, Forward, Pass, by_networks, told_to
from mm_models import SparseAttention, stream_carried, stream_seen


@attrs.frozen(eq=False)
class _Known:
    """What one branch of guidance knows of an expert's blocks."""

    step: int
    """The latest computed step."""
    differences: tuple[Tensor, ...]
    """D0 to D[derivatives] of that step, fewer after few steps; `[B, S, D]` each, in the stream's dtype."""

    def and_then(self, step: int, added: Tensor, derivatives: int) -> _Known:
        """The same after one more computed step."""
        found = [added]
        for older in self.differences[:derivatives]:
            found.append((found[-1] - older) / (step - self.step))
        return _Known(step, tuple(found))

    def guess(self, step: int) -> Tensor:
        """What the blocks would add in a later step."""
        ahead = step - self.step
        first, *others = self.differences
        return sum((one * (ahead**i / factorial(i)) for i, one in enumerate(others, 1)), first)


def cached(forward: Forward, networks: Mapping[Expert, nn.Module], cache: FeatureCacheSpec) -> Forward:
    """Passes of one batch of videos, of which those in skipped steps compute no block.

    Both halves of a pass of both branches are kept apart, so that one pass of twice the batch, two passes,
    and passes of guidance that works in some steps only know the same.

    Args:
        forward: Makes passes by the networks, in this process and without another change of their inputs.
        networks: Whose blocks stand in a row; the expert at work is looked up in each pass.
        cache: Whose skipped steps are known, and come after enough computed ones.
    """
    known: dict[Branch, _Known] = {}
    working: list[Expert] = []
    skipped = frozenset(cache.skipped or ())

    def passed(which: Pass, *inputs: Tensor) -> Tensor:
        if working != [which.expert]:
            known.clear()
            working[:] = [which.expert]
        branches = branches_of(which)
        if which.step in skipped:
            around = stream_carried(networks[which.expert], partial(carry, which.step, branches))
        else:
            around = stream_seen(networks[which.expert], partial(learn, which.step, branches))
        with around:
            return forward(which, *inputs)

    def carry(step: int, branches: tuple[Branch, ...], before_BSD: Tensor) -> Tensor:
        guesses = [guess(step, branch) for branch in branches]
        return before_BSD + (torch.cat(guesses) if len(guesses) > 1 else guesses[0])

    def guess(step: int, branch: Branch) -> Tensor:
        assert branch in known, f"step {step}: nothing is known of {branch.value} of this expert"
        return known[branch].guess(step)

    def learn(step: int, branches: tuple[Branch, ...], before_BSD: Tensor, after_BSD: Tensor) -> None:
        added = (after_BSD - before_BSD).chunk(len(branches))
        for branch, one in zip(branches, added, strict=True):
            earlier = known.get(branch, _Known(step, ()))
            known[branch] = earlier.and_then(step, one, cache.derivatives)

    return passed


def passes_of(
    networks: Mapping[Expert, nn.Module],
    cache: FeatureCacheSpec | None,
    sparse: SparseAttention | None = None,
) -> Forward:
    """Passes of one batch of videos by the experts, with what the spec has to make them faster."""
    forward = by_networks(networks)
    if sparse is not None:
        forward = told_to(sparse, forward)
    return forward if cache is None else cached(forward, networks, cache)


def branches_of(which: Pass) -> tuple[Branch, ...]:
    """The branches of guidance that a pass computes, in the order of its batch."""
    return (Branch.PROMPT, Branch.NEGATIVE) if which.branch is Branch.BOTH else (which.branch,)
