"""From a data spec and its dataset to a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec, MixtureSpec, Order, Resize
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
) -> Plan:
    """What each step trains on; the same wherever it is made.

    Args:
        data: Sizes, filters, order and batch sizes.
        dataset: What `prepare` returned.
        seed: The run's.
        tokens_of: The network's tokens of a clip; needed for `tokens_per_batch`.
        grid: The sizes that the network takes.
        store: Folder that keeps which clip is in which bucket; None keeps it beside an index.

    Raises:
        UserError: No clip is left, of all or of a mixture's part; a bucket's clips have more tokens than a
            batch may have; or clips can't be measured.
    """
    parts = dataset.parts or (dataset,)
    found = [sort_clips(data, part, seed, grid, store) for part in parts]
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
    )


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
