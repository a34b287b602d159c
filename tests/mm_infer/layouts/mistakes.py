"""Mistakes that ranks could make: each must be seen in the videos of the layout that it concerns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mm_infer import dealing, encoding, loading, pipeline, spreading
from mm_models.parallel import context, ring, tensor, ulysses

Patch = pytest.MonkeyPatch


def noise_of_its_own(patch: Patch) -> None:
    plain = encoding.noise_of
    patch.setattr(encoding, "noise_of", lambda *asked: plain(*asked) + 0.01 * dist.get_rank())


def branches_swapped(patch: Patch) -> None:
    plain = spreading.on_two_ranks

    def swapped(forward: Any, pair: Any) -> Any:
        both = plain(forward, pair)

        def velocity(which: Any, *inputs: Tensor) -> Tensor:
            found = both(which, *inputs)
            return torch.cat(found.chunk(2)[::-1]) if which.branch.value == "both" else found

        return velocity

    patch.setattr(pipeline, "on_two_ranks", swapped)


def one_branch_twice(patch: Patch) -> None:
    patch.setattr(
        pipeline,
        "on_two_ranks",
        lambda forward, pair: (
            lambda which, *inputs: (
                torch.cat([forward(which, *(one.chunk(2)[0] for one in inputs))] * 2)
                if which.branch.value == "both"
                else forward(which, *inputs)
            )
        ),
    )


def the_first_tokens_everywhere(patch: Patch) -> None:
    patch.setattr(context.Context, "place", property(lambda _: 0))


def padding_is_seen(patch: Patch) -> None:
    plain = ring._around

    def around(*asked: Any) -> Any:
        return ((turn, block.shape[2], block) for turn, _, block in plain(*asked))

    patch.setattr(ring, "_around", around)


def heads_not_exchanged(patch: Patch) -> None:
    patch.setattr(ulysses, "all_to_all", lambda parts, group: parts.clone())


def keys_not_handed_on(patch: Patch) -> None:
    patch.setattr(ring, "_passed_on", lambda mine, group, tag: lambda: mine)


def sums_left_out(patch: Patch) -> None:
    patch.setattr(tensor, "_sum", lambda x, group: x)


def batches_in_another_order(patch: Patch) -> None:
    plain = dealing.turns

    def dealt(batches: Any, layout: Any) -> Any:
        return plain(list(batches)[::-1], layout)

    patch.setattr(pipeline, "turns", dealt)


def weights_of_the_first_rank(patch: Patch) -> None:
    plain = loading.spread

    def spread(network: Any, spec: Any, layout: Any) -> None:
        plain(network, spec, layout)
        network.register_forward_pre_hook(lambda *_: _copy_first(network), prepend=True)

    patch.setattr(loading, "spread", spread)


def _copy_first(network: Any) -> None:
    for one in network.parameters():
        local = one.to_local() if hasattr(one, "to_local") else one
        if dist.get_rank() == 1 and local.numel():
            local.data.mul_(1.01)


MISTAKES: Mapping[str, tuple[str, Callable[[Patch], None]]] = {
    "noise of its own": ("data2", noise_of_its_own),
    "noise of its own beside another's": ("ulysses2", noise_of_its_own),
    "branches swapped": ("guidance2", branches_swapped),
    "one branch twice": ("guidance2", one_branch_twice),
    "the first tokens everywhere": ("ulysses2", the_first_tokens_everywhere),
    "padding is seen": ("ring2", padding_is_seen),
    "heads not exchanged": ("ulysses2", heads_not_exchanged),
    "keys not handed on": ("ring2", keys_not_handed_on),
    "sums left out": ("tensor2", sums_left_out),
    "batches in another order": ("data2", batches_in_another_order),
    "a shard that drifts": ("ulysses2 fsdp", weights_of_the_first_rank),
}
"""By name: the layout of two ranks that it concerns, and what is changed."""
