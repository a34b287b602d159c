"""From a data spec and its dataset to a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import cast

import numpy as np

from mm_config.rules import counted
from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec, MixtureSpec, Order, Resize, Tails
from mm_data.plan.counts import Counts, Given, LeftOut, period_of, shares, tail_of
from mm_data.plan.plan import Bucket, Members, Plan
from mm_data.plan.sharing import whole_weights
from mm_data.plan.sorting import Sorted, sort_clips
from mm_data.records import Dataset, Shape
from mm_data.transforms.grid import WAN, Grid

TokensOf = Callable[[Shape], int]


def make_plan(
    data: DataSpec,
    dataset: Dataset,
    seed: int,
    *,
    tokens_of: TokensOf | None = None,
    grid: Grid = WAN,
    store: Path | None = None,
    holdout: float = 0.0,
) -> Plan:
    """What each step trains on; the same wherever it is made.

    Args:
        data: Sizes, filters, order and batch sizes.
        dataset: What `prepare` returned.
        seed: The run's.
        tokens_of: The network's tokens of a clip; needed for `tokens_per_batch`.
        grid: The sizes that the network takes.
        store: Folder that keeps which clip is in which bucket; None keeps it beside an index.
        holdout: Share of the files whose clips no step has; `held_out` of the plan has them.

    Raises:
        UserError: No clip is left, of all or of a mixture's part; a bucket's clips have more tokens than a
            batch may have; clips can't be measured; or those that are held out fill no batch.
    """
    parts = dataset.parts or (dataset,)
    found = [sort_clips(data, part, seed, grid, store, holdout) for part in parts]
    if problems := list(_empty(dataset, found)):
        raise UserError(problems)
    shapes = sorted({shape for one in found for shape in one.members}, key=_by_size)
    clips = [[len(one.members.get(shape, ())) for one in found] for shape in shapes]
    buckets: list[Bucket] = []
    given: list[Given] = []
    for shape, counts, of_parts in zip(shapes, clips, shares(_weights(data, dataset), clips), strict=True):
        size, count = _batch_size(data, shape, tokens_of), sum(counts)
        members = tuple(_members(data, dataset, found, shape, size))
        period, tail = Fraction(members[0].period), tail_of(count, size, data.tails)
        if dataset.parts:  # They have epochs of their own, so a bucket of several has no tail.
            period, tail = sum(of_parts, Fraction()) * sum(map(sum, clips)), 0
        weights = whole_weights([share for share in of_parts if share])
        buckets.append(Bucket(shape, size, members, weights, period))
        given.append(Given(shape, size, tuple(counts), period / size, tail))
    rows = tuple(one.rows for one in found)
    return Plan(
        buckets,
        Counts(tuple(given), tuple(_left_out(parts, found)), rows, data.tails),
        dataset.order_key,
        seed,
        in_order=data.order is Order.SEQUENTIAL,
        block=data.shuffle_block,
        held_out=_held_out(data, dataset, found, seed, tokens_of, holdout) if holdout else None,
    )


def _held_out(
    data: DataSpec,
    dataset: Dataset,
    found: Sequence[Sorted],
    seed: int,
    tokens_of: TokensOf | None,
    holdout: float,
) -> Plan:
    """Full batches of the clips that are held out, each clip counted once whatever its part's weight.

    Raises:
        UserError: They fill no batch.
    """
    firsts = [0, *accumulate(one.rows for one in found)]
    buckets: list[Bucket] = []
    given: list[Given] = []
    for shape in sorted({shape for one in found for shape in one.held}, key=_by_size):
        apart = [
            np.asarray(one.held[shape], np.int64) + first
            for one, first in zip(found, firsts, strict=False)
            if shape in one.held
        ]
        indices, size = cast("Sequence[int]", np.concatenate(apart)), _batch_size(data, shape, tokens_of)
        batches = len(indices) // size  # Of a bucket with fewer clips than a batch there is none.
        members = Members(indices, 0, f"{dataset.order_key}/held out/{_shown(shape)}", batches * size)
        buckets.append(Bucket(shape, size, (members,), (1,), Fraction(batches * size)))
        given.append(Given(shape, size, (len(indices),), Fraction(batches), len(indices) % size))
    rows = tuple(one.rows for one in found)
    counts = Counts(tuple(given), (), rows, Tails.DROP)
    if not any(one.batches for one in given):
        batch = min((one.size for one in given), default=data.batch_size)
        message = (
            f"{holdout:g} of {counted(sum(rows), 'clip')} holds out {counts.clips}, fewer than a batch of "
            f"{batch}; hold out more"
        )
        raise UserError(Problem("spec.validation.holdout", message))
    return Plan(buckets, counts, f"{dataset.order_key}/held out", seed, in_order=False, block=None)


def _members(
    data: DataSpec, dataset: Dataset, found: Sequence[Sorted], shape: Shape, size: int
) -> Iterator[Members]:
    """The clips of each part that are in a bucket."""
    one_size = not data.buckets and data.resize is not Resize.AREA and data.min_num_frames is None
    own = "" if one_size else f"/{_shown(shape)}"
    offset = 0
    for number, one in enumerate(found):
        if (indices := one.members.get(shape)) is not None:
            named = f"/part {number}" if dataset.parts else ""
            period = len(indices) if dataset.parts else period_of(len(indices), size, data.tails)
            yield Members(indices, offset, f"{dataset.order_key}{named}{own}", period)
        offset += one.rows


def _weights(data: DataSpec, dataset: Dataset) -> list[Fraction]:
    """Of each part, as they are written: 0.7 is seven tenths."""
    if not dataset.parts:
        return [Fraction(1)]
    assert isinstance(data.dataset, MixtureSpec)
    return [Fraction(repr(part.weight)) for part in data.dataset.parts]


def _batch_size(data: DataSpec, shape: Shape, tokens_of: TokensOf | None) -> int:
    """Clips in a batch of a shape: its bucket's own, or as many multiples of the data's as tokens allow.

    Raises:
        UserError: No batch has so few tokens.
    """
    if data.tokens_per_batch is None:
        same = (b for b in data.buckets if (b.num_frames, b.height, b.width) == _by_size(shape))
        own = next(same, None)
        return (own and own.batch_size) or data.batch_size
    assert tokens_of is not None, "tokens_per_batch needs the network's tokens"
    tokens = tokens_of(shape) * data.batch_size
    if tokens > data.tokens_per_batch:
        message = (
            f"is {data.tokens_per_batch:,}, but data.batch_size = {data.batch_size} takes "
            f"{tokens:,} tokens at {_shown(shape)}"
        )
        raise UserError(Problem("spec.data.tokens_per_batch", message))
    return data.tokens_per_batch // tokens * data.batch_size


def _empty(dataset: Dataset, found: Sequence[Sorted]) -> Iterator[Problem]:
    """Datasets of which no clip is left, with what took them."""
    for number, one in enumerate(found):
        if not one.members:
            taken = "; ".join(f"{count:,} x {reason}" for reason, count, _ in one.left_out)
            where = f"spec.data.dataset.parts.{number}" if dataset.parts else "spec.data"
            yield Problem(where, f"no clip of {one.rows:,} is left: {taken}")


def _left_out(parts: Sequence[Dataset], found: Sequence[Sorted]) -> Iterator[LeftOut]:
    for number, (part, one) in enumerate(zip(parts, found, strict=True)):
        for reason, count, first in one.left_out:
            yield LeftOut(number, reason, count, tuple(part.name_of(index) for index in first))


def _by_size(shape: Shape) -> tuple[int, int, int]:
    return shape.num_frames, shape.height, shape.width


def _shown(shape: Shape) -> str:
    return f"{shape.num_frames}x{shape.height}x{shape.width}"
