"""The adapters of a spec: found, read, and added to the expert that each is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
from torch import nn

from mm_config.console.output import say
from mm_config.options.run_options import RunOptions
from mm_config.running.trained_by import resolve_weights
from mm_config.schema.errors import Problem, UserError, concerning
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Weights
from mm_config.specs.weights import RandomWeights, TrainedBy
from mm_models.lora.adapter import LOW_NOISE, Addition, StoredAdapters
from mm_models.lora.files import read_adapters
from mm_models.lora.fitting import fit_problems
from mm_models.lora.merging import merge
from mm_models.lora.unmerged import attach


@attrs.frozen(eq=False)
class Adapters:
    """What is added to one expert."""

    merged: tuple[Addition, ...]
    """To its weights, once."""
    beside: tuple[Addition, ...]
    """Beside them, in each pass."""


@attrs.frozen(eq=False)
class _Wanted:
    """An adapter as a field of the spec asks for it."""

    expert: Expert
    weights: Weights
    strength: float
    merge: bool
    buildable: bool
    """Whether the spec allows it to be trained."""


@attrs.frozen(eq=False)
class _Found:
    """An adapter that was read and fits."""

    asked: _Wanted
    stored: StoredAdapters
    """All that its file holds."""
    addition: Addition


def check_adapters(spec: InferSpec, options: RunOptions, network: nn.Module, *, buildable: bool) -> None:
    """Reads adapters and holds them against the network, and says what of their files nothing takes.

    Args:
        spec: The spec, whose rules hold.
        options: Where runs and locations are looked up.
        network: The spec's, on meta.
        buildable: Whether this is for the adapters that the spec allows to be trained, which trains those
            that are missing, or for the others.

    Raises:
        UserError: Adapters are nowhere, can't be read, are for the other expert, don't fit the network, or
            are to be beside the weights and change more than linear layers. Those of all fields are
            reported together, but trainings end with the first that fails.
    """
    wanted = {field: one for field, one in _wanted(spec).items() if one.buildable is buildable}
    found = _read(wanted, spec, options, network)
    taken = {id(one.addition.adapter) for one in found.values()}
    told: set[Path] = set()
    for field, one in found.items():
        path = one.stored.path
        for name, adapter in one.stored.experts.items():
            if id(adapter) not in taken and path not in told:
                told.add(path)
                say(_left_out(field, path, name))


def load_adapters(spec: InferSpec, options: RunOptions, network: nn.Module) -> Mapping[Expert, Adapters]:
    """Reads the adapters of each expert and holds them against the network, which is on meta.

    Raises:
        UserError: As `check_adapters`.
    """
    found = _read(_wanted(spec), spec, options, network).values()
    return {
        expert: Adapters(
            merged=tuple(one.addition for one in found if one.asked.expert is expert and one.asked.merge),
            beside=tuple(one.addition for one in found if one.asked.expert is expert and not one.asked.merge),
        )
        for expert in {one.asked.expert for one in found}
    }


def add_adapters(network: nn.Module, adapters: Adapters) -> None:
    """Adds them to an expert with its weights; generation never takes them out, so nothing is kept.

    Raises:
        UserError: One that is to be beside the weights changes more than linear layers.
    """
    if adapters.merged:
        merge(network, adapters.merged, keep_on=None)
    if adapters.beside:
        attach(network, adapters.beside, where="spec.loras (merge False)")


def _read(
    wanted: Mapping[str, _Wanted], spec: InferSpec, options: RunOptions, network: nn.Module
) -> dict[str, _Found]:
    """The adapter of each field, whose file is read once."""
    shapes = spec.model.parameter_shapes()
    files: dict[Path, StoredAdapters] = {}
    found: dict[str, _Found] = {}
    problems: list[Problem] = []
    for field, one in wanted.items():
        try:
            path = resolve_weights(one.weights, options, one.buildable, field)
            assert not isinstance(path, RandomWeights), "rules.check refuses random weights of an adapter"
            with concerning(field):
                if path not in files:
                    files[path] = read_adapters(path)
                addition = Addition(files[path].of(one.expert), one.strength)
                if misfits := fit_problems(addition.adapter, shapes, str(path)):
                    raise UserError(misfits)
                if not one.merge:
                    attach(network, (addition,), where=str(path)).detach()
        except UserError as error:
            if one.buildable:
                raise  # After a training that failed no other is started.
            problems += error.problems
        else:
            found[field] = _Found(one, files[path], addition)
    if problems:
        raise UserError(problems)
    return found


def _left_out(field: str, path: Path, name: str) -> str:
    entry = field.rpartition(".")[0]
    other = "low_noise" if name == LOW_NOISE else "high_noise"
    expert = other.replace("_", "-")
    return (
        f"{field}: {path} holds an adapter of the {expert} expert too, which no field takes; "
        f"to add it, name it in {entry}.{other} or in that of a further entry"
    )


def _wanted(spec: InferSpec) -> dict[str, _Wanted]:
    """What is asked for, by the field that names the adapter."""
    high = Expert.SINGLE if spec.boundary is None else Expert.HIGH_NOISE
    build = spec.runtime.build_missing
    return {
        f"spec.loras.{index}.{name}": _Wanted(
            expert, weights, lora.strength, lora.merge, build and isinstance(weights, TrainedBy)
        )
        for index, lora in enumerate(spec.loras)
        for name, expert, weights in (
            ("high_noise", high, lora.high_noise),
            ("low_noise", Expert.LOW_NOISE, lora.low_noise),
        )
        if weights is not None
    }
