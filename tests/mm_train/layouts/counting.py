"""Counts what the collectives of a step move, at the functions of `torch.distributed` that all call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mm_config.planning.costs import Kind
from mm_config.specs import TrainSpec
from mm_models.ops.choosing import choose
from mm_models.parallel import over_ranks, tensor
from mm_models.ranks import Ranks
from mm_train.adapters import build_network
from mm_train.layout import layout_of
from mm_train.optim import build_optimizer
from mm_train.parallelize import materialize, parallelize
from mm_train.sharding import set_gradient_sync
from tests.mm_train.layouts.carrying_out import CPU, fill

Moved = Counter[tuple[str, str]]
"""By kind of collective: `messages`, and the `bytes` that one rank sends at least."""


@contextmanager
def counted() -> Iterator[Moved]:
    """What this rank's collectives move in a block."""
    moved: Moved = Counter()

    def around(kind: Kind, function: Callable[..., Any], sent: Callable[[Any, int], float]) -> Any:
        def counting(*args: Any, **kwargs: Any) -> Any:
            group = kwargs["group"] if "group" in kwargs else args[-1]
            moved[kind.value, "messages"] += 1
            moved[kind.value, "bytes"] += int(
                sent({**dict(enumerate(args)), **kwargs}, dist.get_world_size(group))
            )
            return function(*args, **kwargs)

        return counting

    def reduced(given: Any, ranks: int) -> float:
        return 2 * size_of(given[0]) * (ranks - 1) / ranks

    def exchanged(given: Any, ranks: int) -> float:
        sizes = given.get(3) or [given[1].numel() // ranks] * ranks
        return (sum(sizes) - sizes[dist.get_rank(given["group"])]) * given[1].element_size()

    with pytest.MonkeyPatch.context() as patch:
        for name, kind, sent in (
            (
                "all_gather_single",
                Kind.ALL_GATHER,
                lambda given, ranks: size_of(given[1]) * (ranks - 1),
            ),
            ("all_gather", Kind.ALL_GATHER, lambda given, ranks: size_of(given[1]) * (ranks - 1)),
            (
                "reduce_scatter_single",
                Kind.REDUCE_SCATTER,
                lambda given, ranks: size_of(given["output"]) * (ranks - 1),
            ),
            ("all_reduce", Kind.ALL_REDUCE, reduced),
            ("all_to_all_single", Kind.ALL_TO_ALL, exchanged),
        ):
            patch.setattr(dist, name, around(kind, getattr(dist, name), sent))
        patch.setattr(tensor, "all_reduce", around(Kind.ALL_REDUCE, tensor.all_reduce, reduced))
        plain = dist.batch_isend_irecv

        def passed(operations: list[dist.P2POp]) -> Any:
            for one in operations:
                if one.op is dist.isend:
                    moved[Kind.SEND.value, "messages"] += 1
                    moved[Kind.SEND.value, "bytes"] += size_of(one.tensor)
            return plain(operations)

        patch.setattr(dist, "batch_isend_irecv", passed)
        yield moved


def size_of(one: Tensor) -> int:
    """Its bytes."""
    return one.numel() * one.element_size()


def moved_in_a_step(spec: TrainSpec) -> tuple[Moved, int]:
    """What the passes and the update of a step move, and how many collectives torch's profiler saw."""
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), grouped=True)
    layout = layout_of(spec, ranks, CPU)
    network, _ = build_network(spec, over_ranks(choose(CPU, spec.runtime.attention), layout.context))
    parallelize(network, spec, layout, CPU)
    materialize(network, CPU)
    fill(network)
    share = spec.data.batch_size // layout.data_ranks
    micro = spec.runtime.micro_batch_size or share
    optimizer = build_optimizer(network, spec.optim, CPU)
    _pass(network, spec, micro)
    with counted() as moved, torch.profiler.profile() as profile:
        for last in range(micro, share + 1, micro):
            set_gradient_sync(network, on=last == share)
            _pass(network, spec, micro)
        optimizer.step()
    seen = sum(event.count for event in profile.key_averages() if _begins(event.key))
    return moved, seen


def _begins(name: str) -> bool:
    return name.startswith("c10d::") and "recv" not in name


def _pass(network: nn.Module, spec: TrainSpec, samples: int) -> None:
    shape = spec.autoencoder.latent_shape(spec.data.num_frames, spec.data.height, spec.data.width)
    latents = torch.randn(samples, spec.model.in_channels, *shape)
    text = torch.randn(samples, spec.text_encoder.max_tokens, spec.text_encoder.text_dim)
    network(latents, torch.full((samples,), 500.0), text).square().mean().backward()
