"""The adapters of a spec: found, read, and added to the expert that each is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
from torch import nn

from mm_config.errors import Problem, UserError, concerning
from mm_config.options import RunOptions
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Weights
from mm_config.specs.weights import RandomWeights, TrainedBy
from mm_config.weights import resolve_weights
from mm_models.lora.adapter import Addition
from mm_models.lora.beside import attach
from mm_models.lora.fitting import fit_problems
from mm_models.lora.merging import merge
from mm_models.lora.reading import read_adapters


@attrs.frozen(eq=False)
class Adapters:
    """What is added to one expert."""

    merged: tuple[Addition, ...]
    """To its weights, once."""
    beside: tuple[Addition, ...]
    """Beside them, in each pass."""


def resolve_adapters(spec: InferSpec, options: RunOptions, *, build: bool) -> dict[str, Path]:
    """The file or folder of each adapter, by its field.

    Args:
        spec: The spec, whose rules hold.
        options: Where runs and locations are looked up.
        build: Whether those that the spec allows to be trained are trained; otherwise they are left out.

    Raises:
        UserError: Adapters are nowhere; all that are missing are reported together.
    """
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    for field, (_, weights, *_) in _wanted(spec).items():
        if spec.runtime.build_missing and isinstance(weights, TrainedBy) and not build:
            continue
        try:
            path = resolve_weights(weights, options, build, field)
            assert not isinstance(path, RandomWeights), "rules.check refuses random weights of an adapter"
            found[field] = path
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return found


def load_adapters(spec: InferSpec, options: RunOptions) -> Mapping[Expert, Adapters]:
    """Reads the adapters of each expert and holds them against the network, which need not be loaded yet.

    Raises:
        UserError: Adapters are nowhere, can't be read, are for the other expert, or don't fit the network;
            those of all fields are reported together.
    """
    paths = resolve_adapters(spec, options, build=spec.runtime.build_missing)
    shapes = spec.model.parameter_shapes()
    found: dict[Expert, list[tuple[bool, Addition]]] = {}
    problems: list[Problem] = []
    for field, (expert, _, strength, merged) in _wanted(spec).items():
        try:
            with concerning(field):
                adapter = read_adapters(paths[field]).of(expert)
                if misfits := fit_problems(adapter, shapes, str(paths[field])):
                    raise UserError(misfits)
        except UserError as error:
            problems += error.problems
        else:
            found.setdefault(expert, []).append((merged, Addition(adapter, strength)))
    if problems:
        raise UserError(problems)
    return {
        expert: Adapters(
            merged=tuple(addition for merged, addition in additions if merged),
            beside=tuple(addition for merged, addition in additions if not merged),
        )
        for expert, additions in found.items()
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


def _wanted(spec: InferSpec) -> dict[str, tuple[Expert, Weights, float, bool]]:
    """Expert, weights, strength and whether to merge, by the field that names the adapter."""
    high = Expert.SINGLE if spec.boundary is None else Expert.HIGH_NOISE
    return {
        f"spec.loras.{index}.{name}": (expert, weights, lora.strength, lora.merge)
        for index, lora in enumerate(spec.loras)
        for name, expert, weights in (
            ("high_noise", high, lora.high_noise),
            ("low_noise", Expert.LOW_NOISE, lora.low_noise),
        )
        if weights is not None
    }
