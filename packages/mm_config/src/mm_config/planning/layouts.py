"""The legal layouts of a training in a world, by how long a step takes and what each rank needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import attrs

from mm_config import rules
from mm_config.planning.costs import passes
from mm_config.planning.devices import device_named, timing
from mm_config.planning.suggestions import as_flags, divisors, refused
from mm_config.planning.traffic import train_traffic
from mm_config.planning.training import train_memory, train_work
from mm_config.rules.ranks import head_problems, train_rank_problems
from mm_config.schema.errors import UserError
from mm_config.schema.evolve import get, replace, unchecked
from mm_config.schema.root import RootSpec
from mm_config.specs.parallel import ParallelSpec, Recompute
from mm_config.specs.train import TrainSpec

MOST_LISTED = 20
"""Layouts that are listed, which are checked whole; the others are counted."""
_DIGITS = 3
"""Of a step's seconds, in which layouts that are told apart by memory alone are equal."""

Values = Mapping[str, Any]
"""Fields by their paths."""


@attrs.frozen
class Found:
    """One layout that fits."""

    flags: str
    """What it changes, as given to `mm plan` and to the experiment."""
    predicted_seconds: float
    """Predicted, of a step."""
    exposed_seconds: float
    """Of these, what ranks wait for traffic."""
    total_bytes_per_rank: int
    """What each rank needs."""


@attrs.frozen
class Search:
    """What was found in a world."""

    world_size: int
    """Its ranks."""
    device: str
    """Of each rank."""
    efficiency: float
    """What computation reaches, as a share of the peak."""
    layouts: tuple[Found, ...]
    """The fastest, and of equally fast ones first those that need least."""
    fitting: int
    """All that fit, those beyond the list included."""
    too_large: int
    """Legal ones that need more than a rank has, whatever their micro-batch."""


def search(spec: RootSpec, world_size: int, device: str, efficiency: float | None = None) -> Search:
    """All degrees, sizes of a copy, and modes of recomputation that the rules and the runner allow.

    Of micro-batches each takes the largest that fits: smaller ones only repeat gathers.

    Args:
        spec: What is laid out anew; all that isn't searched stays as it says.
        world_size: The ranks.
        device: Of each rank, by its name.
        efficiency: What computation reaches, as a share of the peak; the device's own by default.

    Raises:
        UserError: It is no training, there is no such device, or nothing is legal: what stands in the way.
    """
    if not isinstance(spec, TrainSpec):
        raise UserError(f"only trainings are searched for layouts, got {type(spec).__name__}")
    ranked = device_named(device, world_size)
    share = efficiency or ranked.train_efficiency
    found: list[tuple[float, int, float, Values]] = []
    too_large = 0
    for values in _legal(spec, world_size):
        sized = _largest_that_fits(_changed(spec, values), world_size, ranked.usable_bytes)
        if sized is None:
            too_large += 1
            continue
        micro, total = sized
        values = {**values, "runtime.micro_batch_size": micro}
        changed = _changed(spec, values)
        work, flows = train_work(changed, world_size), train_traffic(changed, world_size)
        times = timing(work, flows, ranked, share)
        found.append((times.predicted, total, times.exposed, {**values, "runtime.micro_batch_size": micro}))
    if not found and not too_large:
        raise UserError(rules.problems(spec, world_size))
    found.sort(key=lambda one: (float(f"{one[0]:.{_DIGITS}g}"), one[1]))
    listed: list[Found] = []
    for seconds, total, exposed, values in found:
        if len(listed) == MOST_LISTED:
            break
        changes = {path: value for path, value in values.items() if value != get(spec, path)}
        whole = replace(spec, changes) if changes else spec
        if not rules.problems(whole, world_size) and not refused(spec, whole):
            listed.append(Found(as_flags(changes), seconds, exposed, total))
    return Search(world_size, ranked.name, share, tuple(listed), len(found), too_large)


def _legal(spec: TrainSpec, world_size: int) -> Iterator[Values]:
    """What rules about ranks allow, in all values that the runner knows."""
    numbers = [number for number in range(1, world_size + 1) if world_size % number == 0]
    modes = _known(spec, "recompute.mode", list(Recompute))
    degrees = (_known(spec, f"parallel.{name}", numbers) for name in ("ulysses", "ring", "tensor"))
    for ulysses, ring, tensor in product(*degrees):
        parallel = ParallelSpec(ulysses=ulysses, ring=ring, tensor=tensor)
        if list(head_problems(parallel, spec.model, "spec")):
            continue
        group = world_size // tensor
        sizes = [
            None if number == group and spec.fsdp.shard_size is None else number
            for number in numbers
            if group % number == 0
        ]
        for shard in _known(spec, "fsdp.shard_size", sizes):
            values = {
                "parallel.ulysses": ulysses,
                "parallel.ring": ring,
                "parallel.tensor": tensor,
                "fsdp.shard_size": shard,
                "runtime.micro_batch_size": None,
            }
            if not list(train_rank_problems(_changed(spec, values), world_size)):
                yield from ({**values, "recompute.mode": mode} for mode in modes)


def _known(spec: TrainSpec, path: str, choices: list[Any]) -> list[Any]:
    return [one for one in choices if not refused(spec, _changed(spec, {path: one}))]


def _largest_that_fits(spec: TrainSpec, world_size: int, usable_bytes: int) -> tuple[int | None, int] | None:
    """A rank's clips in a pass, None for its whole share, and what it then needs; None where none fits."""
    share, _, _ = passes(spec, world_size)

    def total(size: int | None) -> int:
        return train_memory(_changed(spec, {"runtime.micro_batch_size": size}), world_size).total

    sizes = [None, *divisors(share, below=share)]
    if total(sizes[-1]) > usable_bytes:
        return None
    return next((size, needed) for size in sizes if (needed := total(size)) <= usable_bytes)


def _changed(spec: TrainSpec, values: Values) -> TrainSpec:
    """As `replace`, for thousands of layouts, whose values are right."""
    for path, value in values.items():
        spec = unchecked(spec, path.split("."), value)
    return spec
