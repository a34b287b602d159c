"""The residency that `auto` stands for, and what a generation lacks on a device."""

from __future__ import annotations

from itertools import product

import attrs

from mm_config.planning.costs import Kind
from mm_config.planning.inference import infer_memory
from mm_config.planning.suggestions import suggestions
from mm_config.planning.traffic import infer_traffic
from mm_config.rules.residency import block_problems
from mm_config.schema.evolve import replace
from mm_config.specs.infer import InferSpec
from mm_config.specs.serving import GuidanceMode, Residency, ResidencySpec

_EXPERTS = (Residency.RESIDENT, Residency.SWAP, Residency.LAYERWISE)
_ENCODERS = (Residency.RESIDENT, Residency.SWAP, Residency.LAYERWISE)


def is_automatic(residency: ResidencySpec) -> bool:
    """Whether something of it is left to the plan."""
    return Residency.AUTO in (residency.experts, residency.encoders)


def fastest_residency(spec: InferSpec, usable_bytes: int | None) -> ResidencySpec:
    """A spec's residency, with what moves the fewest bytes of what fits in place of `auto`.

    Args:
        spec: The generation.
        usable_bytes: What each rank may need on its device; None is any number.

    Returns:
        One without `auto`; where nothing fits, the one that needs least.
    """
    said = spec.runtime.residency
    experts = _EXPERTS if said.experts is Residency.AUTO else (said.experts,)
    encoders = _ENCODERS if said.encoders is Residency.AUTO else (said.encoders,)
    found: list[tuple[int, int, ResidencySpec]] = []
    for pair in product(experts, encoders):
        one = attrs.evolve(said, experts=pair[0], encoders=pair[1])
        planned = replace(spec, "runtime.residency", one)
        if not any(block_problems(planned, "spec")):
            found.append((infer_memory(planned).total, _moved_bytes(planned), one))
    fitting = [row for row in found if usable_bytes is None or row[0] <= usable_bytes]
    if not fitting:
        return min(found, key=lambda row: row[0])[2]
    return min(fitting, key=lambda row: row[1])[2]


def chosen_residency(spec: InferSpec, there: str) -> str:
    """Says what was chosen in place of `auto`.

    Args:
        spec: The generation with the choice.
        there: What it was held against: `of 80.0 GB that are free on cuda`.
    """
    chosen, needed = spec.runtime.residency, infer_memory(spec).total
    return (
        f"residency: experts {chosen.experts.value}, encoders {chosen.encoders.value}; by mm plan the "
        f"fastest that fits, with {gigabytes(needed)} {there}"
    )


def lacking(spec: InferSpec, usable_bytes: int) -> str | None:
    """Why a generation does not fit into a rank's memory, and what would; None where it fits.

    Args:
        spec: The generation, whose residency is not `auto`.
        usable_bytes: What each rank may need on its device.
    """
    memory = infer_memory(spec)
    if memory.total <= usable_bytes:
        return None
    largest = max(memory.bytes, key=lambda name: memory.bytes[name])
    needed = (
        f"mm plan has it need {gigabytes(memory.total)} while {memory.fullest}, of which {largest} "
        f"{'are' if largest.endswith('s') else 'is'} {gigabytes(memory.bytes[largest])}"
    )
    ways = suggestions(spec, _world_size(spec), usable_bytes, lambda changed, _: infer_memory(changed))
    fitting = [f"{one.flags} ({gigabytes(one.total_bytes)})" for one in ways]
    would = f"what would fit: {' or '.join(fitting)}" if fitting else "no few changes would make it fit"
    return f"{needed}; {would}"


def gigabytes(size: int) -> str:
    """For a person, in decimal units."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _moved_bytes(spec: InferSpec) -> int:
    return sum(flow.bytes for flow in infer_traffic(spec) if flow.kind is Kind.COPY)


def _world_size(spec: InferSpec) -> int:
    parallel, branches = spec.runtime.parallel, 1 + (spec.runtime.guidance is GuidanceMode.PARALLEL)
    return parallel.data * branches * parallel.ulysses * parallel.ring * parallel.tensor
