"""The adapters of a spec: found, read once, and added to the expert that each is for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs
from torch import nn

from mm_config.console import say
from mm_config.options import RunOptions
from mm_config.running import resolve_weights
from mm_config.schema import Problem, UserError, concerning
from mm_config.specs import Expert, InferSpec, RandomWeights, TrainedBy, Weights
from mm_models import Use, check_said
from mm_models.lora import LOW_NOISE, Addition, StoredAdapters, attach, fit_problems, merge, read_adapters


@attrs.frozen(eq=False)
class AdapterField:
    """A field of a spec that names an adapter."""

    path: str
    """Its canonical path."""
    expert: Expert
    """The expert that the adapter is for."""
    weights: Weights
    """Where it comes from."""
    strength: float
    """How much of it is added."""
    merge: bool
    """Whether it is added to the weights once, or beside them in each pass."""
    buildable: bool
    """Whether the spec allows it to be trained."""


@attrs.frozen(eq=False)
class ReadAdapter:
    """An adapter that was read and fits the network."""

    field: AdapterField
    """What asks for it."""
    stored: StoredAdapters
    """All that its file holds."""
    addition: Addition
    """What of that goes to the expert."""


def adapter_fields(spec: InferSpec) -> tuple[AdapterField, ...]:
    """What a spec asks for, in the order in which it is added."""
    high = Expert.SINGLE if spec.boundary is None else Expert.HIGH_NOISE
    build = spec.runtime.build_missing
    return tuple(
        AdapterField(
            path=f"spec.loras.{index}.{name}",
            expert=expert,
            weights=weights,
            strength=lora.strength,
            merge=lora.merge,
            buildable=build and isinstance(weights, TrainedBy),
        )
        for index, lora in enumerate(spec.loras)
        for name, expert, weights in (
            ("high_noise", high, lora.high_noise),
            ("low_noise", Expert.LOW_NOISE, lora.low_noise),
        )
        if weights is not None
    )


def read_fields(
    fields: Iterable[AdapterField], spec: InferSpec, options: RunOptions
) -> tuple[ReadAdapter, ...]:
    """Reads adapters, each file once, holds them against the network, and says what of a file nothing takes.

    Args:
        fields: What asks for them; those that may be trained and are missing are trained first.
        spec: The spec, whose rules hold.
        options: Where runs and locations are looked up.

    Raises:
        UserError: Adapters are nowhere, can't be read, are for the other expert, or don't fit the network.
            Those of all fields are reported together, but trainings end with the first that fails.
    """
    shapes = spec.model.parameter_shapes()
    files: dict[Path, StoredAdapters] = {}
    found: list[ReadAdapter] = []
    problems: list[Problem] = []
    for field in fields:
        try:
            path = resolve_weights(field.weights, options, field.buildable, field.path)
            assert not isinstance(path, RandomWeights), "rules.check refuses random weights of an adapter"
            with concerning(field.path):
                base = spec.low_noise if field.expert is Expert.LOW_NOISE else spec.high_noise
                check_said(path, Use(field.expert, spec.boundary, base=base))
                if path not in files:
                    files[path] = read_adapters(path)
                addition = Addition(files[path].of(field.expert), field.strength)
                if misfits := fit_problems(addition.adapter, shapes, str(path)):
                    raise UserError(misfits)
        except UserError as error:
            if field.buildable:
                raise  # After a training that failed no other is started.
            problems += error.problems
        else:
            found.append(ReadAdapter(field, files[path], addition))
    if problems:
        raise UserError(problems)
    _say_left_out(found)
    return tuple(found)


def add_adapters(network: nn.Module, adapters: Sequence[ReadAdapter]) -> None:
    """Adds them to an expert with its weights; generation never takes them out, so nothing is kept."""
    if merged := [one.addition for one in adapters if one.field.merge]:
        merge(network, merged, keep_on=None)
    if unmerged := [one.addition for one in adapters if not one.field.merge]:
        attach(network, unmerged, where="spec.loras (merge False)")


def _say_left_out(adapters: Sequence[ReadAdapter]) -> None:
    """Tells once of each file that holds an adapter of the other expert, which no field takes."""
    taken = {id(one.addition.adapter) for one in adapters}
    told: set[Path] = set()
    for one in adapters:
        path = one.stored.path
        for name, adapter in one.stored.experts.items():
            if id(adapter) not in taken and path not in told:
                told.add(path)
                say(_left_out(one.field.path, path, name))


def _left_out(field: str, path: Path, name: str) -> str:
    entry = field.rpartition(".")[0]
    other = "low_noise" if name == LOW_NOISE else "high_noise"
    expert = other.replace("_", "-")
    return (
        f"{field}: {path} holds an adapter of the {expert} expert too, which no field takes; "
        f"to add it, name it in {entry}.{other} or in that of a further entry"
    )
