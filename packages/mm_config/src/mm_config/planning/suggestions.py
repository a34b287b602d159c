"""The smallest changes that make a spec fit a device, each found by planning the changed spec again."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import attrs

from mm_config import rules
from mm_config.planning.costs import Memory, ceil_div, passes
from mm_config.planning.denoising import passes_by_step
from mm_config.rules.carried_out import refusals
from mm_config.schema.evolve import get, replace
from mm_config.specs.encoders import WanAutoencoderSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.serving import GuidanceMode, Residency
from mm_config.specs.train import TrainSpec

MOST_SUGGESTIONS = 3
_MOST_TOGETHER = 4
"""Changes that are tried at once, beyond which nobody would take a suggestion for small."""
_RANK_FACTORS = (2, 4, 8, 16)
_LARGEST_DIVISOR = 1024
_MOST_DIVISORS = 6


@attrs.frozen
class Change:
    """One step towards less memory."""

    values: Mapping[str, Any]
    """Fields by their paths."""
    world_size: int | None = None
    """Ranks, where they change."""


@attrs.frozen
class Suggestion:
    """Changes that make a spec fit together."""

    flags: str
    """As given to `mm plan` and to the experiment."""
    total_bytes: int
    """What each rank needs then."""


MemoryOf = Callable[[Any, int], Memory]


def suggestions(
    spec: TrainSpec | InferSpec, world_size: int, usable_bytes: int, memory_of: MemoryOf
) -> tuple[Suggestion, ...]:
    """Sets of changes that fit, cheapest first; nothing where none does.

    Kinds of change stand in the order of what they cost, and a set costs what its dearest change does: each
    kind in turn is planned alone, then with one cheaper kind, then with two and three, weak changes first.
    A set that only adds to one already found is left out. What fits is also checked by the rules.

    Args:
        spec: What does not fit.
        world_size: Its ranks.
        usable_bytes: What each rank may need.
        memory_of: The memory of a spec on a number of ranks.
    """
    made = _train_kinds(spec, world_size) if isinstance(spec, TrainSpec) else _infer_kinds(spec, world_size)
    kinds = [kind for kind in map(tuple, made) if kind]
    found: list[Suggestion] = []
    used: list[set[int]] = []
    for dearest in range(len(kinds)):
        for cheaper in _subsets(dearest):
            members = {*cheaper, dearest}
            if any(members >= earlier for earlier in used):
                continue
            options = product(*(kinds[index] for index in (*cheaper, dearest)))
            fitting = (_planned(spec, world_size, together, usable_bytes, memory_of) for together in options)
            if (suggestion := next(filter(None, fitting), None)) is not None:
                found.append(suggestion)
                used.append(members)
                break
        if len(found) == MOST_SUGGESTIONS:
            break
    return tuple(found)


def _subsets(number: int) -> list[tuple[int, ...]]:
    """The sets of cheaper kinds, small sets first."""
    return [
        subset
        for size in range(min(number, _MOST_TOGETHER - 1) + 1)
        for subset in combinations(range(number), size)
    ]


def _planned(
    spec: Any, world_size: int, changes: Sequence[Change], usable_bytes: int, memory_of: MemoryOf
) -> Suggestion | None:
    """The changes together, where they fit and are allowed."""
    values: dict[str, Any] = {}
    for change in changes:
        # What a cheaper kind sets stays: the size of a micro-batch may come along with other changes.
        values |= {path: value for path, value in change.values.items() if path not in values}
    ranks = next((change.world_size for change in changes if change.world_size), world_size)
    changed = replace(spec, values) if values else spec
    total = memory_of(changed, ranks).total
    if total > usable_bytes or rules.problems(changed, ranks) or refused(spec, changed):
        return None
    return Suggestion(as_flags(values, ranks if ranks != world_size else None), total)


def _train_kinds(spec: TrainSpec, world_size: int) -> Iterator[Iterable[Change]]:
    """Kinds of change in the order of what they cost, each from weak to strong."""
    stronger = [Recompute.SELECTIVE, Recompute.FULL]
    if spec.recompute.mode in stronger:
        stronger = stronger[stronger.index(spec.recompute.mode) + 1 :]
    yield (Change({"recompute.mode": mode}) for mode in stronger)
    share, micro, _ = passes(spec, world_size)
    yield (Change({"runtime.micro_batch_size": size}) for size in divisors(share, below=micro))
    yield _sequence_changes(spec, world_size, micro)
    yield _switched_on(spec, "fsdp.offload")
    yield _switched_on(spec, "ema.offload") if spec.ema is not None else ()
    yield _switched_on(spec, "autoencoder.tiling") if isinstance(spec.autoencoder, WanAutoencoderSpec) else ()
    yield _switched_on(spec, "runtime.offload_encoders", *["runtime.shard_encoders"] * (world_size > 1))
    yield (Change({}, world_size * factor) for factor in _RANK_FACTORS)


def _sequence_changes(spec: TrainSpec, world_size: int, micro: int) -> Iterator[Change]:
    """Degrees of sequence parallelism in this world: Ulysses as far as the heads allow, ring for the rest.

    A group of ranks has the clips of all its ranks, so the clips of a pass are kept as they are.
    """
    parallel, heads = spec.parallel, spec.model.num_attention_heads
    for degree in reversed(divisors(world_size // parallel.tensor, below=world_size + 1)):
        if degree > parallel.ulysses * parallel.ring:
            ulysses = math.gcd(degree, heads)
            values = {"parallel.ulysses": ulysses, "parallel.ring": degree // ulysses}
            kept = {name: value for name, value in values.items() if value != get(spec, name)}
            size = {} if spec.runtime.micro_batch_size else {"runtime.micro_batch_size": micro}
            yield Change({**kept, **size})


def _infer_kinds(spec: InferSpec, world_size: int) -> Iterator[Iterable[Change]]:
    """Kinds of change in the order of what they cost, each from weak to strong."""
    runtime, residency = spec.runtime, spec.runtime.residency
    if runtime.guidance is GuidanceMode.BATCHED and max(passes_by_step(spec)) > 1:
        yield (Change({"runtime.guidance": GuidanceMode.SEQUENTIAL}),)
    yield (
        Change({"runtime.batch_size": size})
        for size in divisors(runtime.batch_size, below=runtime.batch_size)
    )
    if isinstance(spec.autoencoder, WanAutoencoderSpec):
        yield _switched_on(spec, "autoencoder.tiling")
    if residency.encoders is Residency.RESIDENT:
        yield (Change({"runtime.residency.encoders": Residency.SWAP}),)
    if residency.experts is Residency.RESIDENT:
        yield (Change({"runtime.residency.experts": Residency.SWAP}),)
    parallel = runtime.parallel
    if world_size == 1 and not parallel.fsdp:
        heads = spec.model.num_attention_heads
        yield (
            Change({"runtime.parallel.fsdp": True, "runtime.parallel.ulysses": ranks}, ranks)
            for ranks in _RANK_FACTORS
            if heads % ranks == 0
        )
    if residency.experts is not Residency.LAYERWISE:
        yield (Change({"runtime.residency.experts": Residency.LAYERWISE}),)


def _switched_on(spec: Any, *paths: str) -> Iterator[Change]:
    return (Change({path: True}) for path in paths if not get(spec, path))


def divisors(number: int, below: int) -> list[int]:
    """Divisors below a number, largest first; of many an even choice, the smallest always with it."""
    largest = min(below - 1, number, _LARGEST_DIVISOR)
    found = [divisor for divisor in range(1, largest + 1) if number % divisor == 0]
    return found[:: ceil_div(len(found), _MOST_DIVISORS) or 1][::-1]


def refused(spec: Any, changed: Any) -> bool:
    """Whether the runner can't do what was changed; what it can't do of the rest is no fault of that."""
    before = refusals(spec)
    return any(problem not in before for problem in refusals(changed))


def as_flags(values: Mapping[str, Any], world_size: int | None = None) -> str:
    """Changed fields as they are typed."""
    words: list[str] = []
    for path, value in values.items():
        words.append(f"--spec.{path.replace('_', '-')}")
        if value is not True:
            words.append(
                "none" if value is None else str(value.value if isinstance(value, enum.Enum) else value)
            )
    return " ".join(words + ([f"--world-size {world_size}"] if world_size is not None else []))
