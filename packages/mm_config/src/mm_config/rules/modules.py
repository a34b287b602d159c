"""Rules on patterns over modules and parameters: each matches what it is for, and none is repeated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from re import fullmatch

from mm_config.rules.patterns import (
    idle_choices,
    linear_layers,
    matching,
    module_lists,
    module_names,
    nearest,
    pattern_problem,
)
from mm_config.rules.wording import divisor_problems
from mm_config.schema.errors import Problem
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import ModelSpec, OptimizerSpec
from mm_config.specs.optim import AdamWSpec, MuonSpec, ParameterGroupSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.serving import QuantFormat, QuantizationSpec
from mm_config.specs.train import TrainSpec

BLOCK_OF_FORMAT = {
    QuantFormat.MXFP8: 32,
    QuantFormat.MXFP6: 32,
    QuantFormat.MXFP4: 32,
    QuantFormat.NVFP4: 16,
}
"""Weights that share a scale where the format fixes it (OCP Microscaling 1.0; NVIDIA's NVFP4)."""


def pattern_problems(
    patterns: tuple[str, ...], names: tuple[str, ...], path: str, kind: str = "module"
) -> Iterator[Problem]:
    """Patterns that are malformed, repeated or match none of the names of modules, or of parameters."""
    for index in range(len(patterns)):
        if message := _pattern_message(patterns, index, names, kind):
            yield Problem(f"{path}.{index}", message)


def linear_problems(patterns: tuple[str, ...], model: ModelSpec, path: str) -> Iterator[Problem]:
    """As `pattern_problems`, for patterns that may match linear layers alone."""
    layers = linear_layers(model)
    others = [name for name in module_names(model) if name not in layers]
    for index, pattern in enumerate(patterns):
        if wrong := _matching(others, pattern):
            near = ", ".join(map(repr, nearest(pattern, tuple(layers))))
            message = f"{pattern!r} matches {wrong[0]!r}, which is no linear layer; nearest: {near}"
            yield Problem(f"{path}.{index}", message)
        elif message := _pattern_message(patterns, index, tuple(layers), "linear layer"):
            yield Problem(f"{path}.{index}", message)


def unit_problems(patterns: tuple[str, ...], model: ModelSpec, path: str) -> Iterator[Problem]:
    """As `pattern_problems`, for modules that have to be called: a list of modules never is."""
    yield from pattern_problems(patterns, module_names(model), path)
    numbered = module_lists(model)
    lists = [name for name in module_names(model) if name in numbered]
    for index, pattern in enumerate(patterns):
        for name in _matching(lists, pattern)[:1]:
            yield Problem(f"{path}.{index}", f"{name!r} is a list of modules; for its items write '{name}.*'")


def sharding_problems(spec: TrainSpec) -> Iterator[Problem]:
    """Units, exceptions from sharding, and recomputed modules."""
    model, fsdp = spec.model, spec.fsdp
    yield from unit_problems(fsdp.wrap, model, "fsdp.wrap")
    yield from unit_problems(fsdp.ignore, model, "fsdp.ignore")
    yield from unit_problems(spec.recompute.modules, model, "recompute.modules")
    names = module_names(model)
    units = {name for pattern in fsdp.wrap for name in _matching(names, pattern)}
    for index, pattern in enumerate(fsdp.ignore):
        if both := sorted(_inside(units, names, (pattern,))):
            yield Problem(
                f"fsdp.ignore.{index}",
                f"{pattern!r} leaves {both[0]!r} whole, which fsdp.wrap shards; take it out of one of them",
            )
    if fsdp.blocks_per_unit > 1 and not any(fullmatch(r"blocks\.\d+", name) for name in units):
        yield Problem(
            "fsdp.blocks_per_unit",
            f"is {fsdp.blocks_per_unit}, but fsdp.wrap matches no whole block; set it to 1 or add 'blocks.*'",
        )
    yield from _kept_problems(spec)


def trainable_problems(spec: TrainSpec) -> Iterator[Problem]:
    """What is frozen and what has a learning rate of its own, so that something is left for each."""
    groups = _groups(spec.optim)
    if spec.lora is not None:
        for name, given in (("frozen", spec.frozen), ("optim.groups", groups)):
            if given:
                yield Problem(
                    name, "is about the network's parameters, which lora leaves as they are; leave it empty"
                )
        return
    if not spec.frozen and not groups:
        return
    names = tuple(spec.model.parameter_shapes())
    yield from pattern_problems(spec.frozen, names, "frozen", "parameter")
    taken = _all_matching(names, spec.frozen)
    if len(taken) == len(names):
        yield Problem("frozen", "matches every parameter: nothing is left to train")
        return
    for index, group in enumerate(groups):
        path = f"optim.groups.{index}.parameters"
        yield from pattern_problems(group.parameters, names, path, "parameter")
        matched = _all_matching(names, group.parameters)
        if matched and matched <= taken:
            yield Problem(path, "matches only parameters that are frozen or in a group before")
        taken |= matched


def quantization_problems(spec: InferSpec) -> Iterator[Problem]:
    """Quantised modules hold linear layers, and groups of weights fill their rows."""
    quantization = spec.quantization
    if quantization is None:
        return
    names = module_names(spec.model)
    yield from pattern_problems(quantization.modules, names, "quantization.modules")
    yield from pattern_problems(quantization.skip, names, "quantization.skip")
    layers = linear_layers(spec.model)
    chosen = _inside(layers, names, quantization.modules) - _inside(layers, names, quantization.skip)
    if not chosen:
        yield Problem("quantization.modules", "holds no linear layer that quantization.skip leaves over")
        return
    row, size = math.gcd(*(layers[name][1] for name in chosen)), quantization.group_size
    if size is not None:
        rows = "the rows of all linear layers"
        yield from divisor_problems("quantization.group_size", size, row, rows, what="weights do")


def group_size_problems(quantization: QuantizationSpec) -> Iterator[Problem]:
    """Some formats fix how many weights share a scale."""
    block = BLOCK_OF_FORMAT.get(quantization.format)
    if block is not None and quantization.group_size != block:
        yield Problem(
            "group_size",
            f"is {quantization.group_size}, but {quantization.format.value} has a scale for each {block} "
            f"weights; set it to {block}",
        )


def _kept_problems(spec: TrainSpec) -> Iterator[Problem]:
    """What stays between forward and backward, of parameters and of activations."""
    part, whole = spec.fsdp.reshard_size, spec.fsdp.shard_size
    if part is not None and not spec.fsdp.reshard_after_forward:
        yield Problem(
            "fsdp.reshard_size",
            f"is {part}, but reshard_after_forward is False: parameters stay whole; set it to None",
        )
    elif part is not None and whole is not None:
        yield from divisor_problems("fsdp.reshard_size", part, whole, f"shard_size {whole}")
    if spec.recompute.mode is Recompute.NONE and spec.recompute.offload:
        yield Problem(
            "recompute.offload",
            "is True, but recompute.mode is none: only what full or selective recomputation keeps is moved; "
            "choose one of them, or set it to False",
        )


def _pattern_message(patterns: tuple[str, ...], index: int, names: tuple[str, ...], kind: str) -> str | None:
    pattern, parameters = patterns[index], kind == "parameter"
    if message := pattern_problem(pattern):
        return message
    if pattern in patterns[:index]:
        return f"{pattern!r} is listed twice"
    if matching(names, pattern, parameters=parameters):
        idle = idle_choices(names, pattern, parameters=parameters)
        return f"{pattern!r} lists {', '.join(idle)}, which match no {kind}" if idle else None
    near = ", ".join(map(repr, nearest(pattern, names)))
    return f"{pattern!r} matches no {kind}; nearest: {near}"


def _matching(names: Iterable[str], pattern: str, *, parameters: bool = False) -> list[str]:
    """The names that fit; none of a malformed pattern, which is told elsewhere."""
    return [] if pattern_problem(pattern) else matching(names, pattern, parameters=parameters)


def _all_matching(names: tuple[str, ...], patterns: tuple[str, ...]) -> set[str]:
    return {name for pattern in patterns for name in _matching(names, pattern, parameters=True)}


def _inside(layers: Iterable[str], names: tuple[str, ...], patterns: tuple[str, ...]) -> set[str]:
    """The layers that a pattern matches, or that lie inside of a module that one matches."""
    outer = {name for pattern in patterns for name in _matching(names, pattern)}
    ends = {
        name: [index for index, character in enumerate(f"{name}.") if character == "."] for name in layers
    }
    return {name for name, dots in ends.items() if any(name[:dot] in outer for dot in dots)}


def _groups(optimizer: OptimizerSpec) -> tuple[ParameterGroupSpec, ...]:
    return optimizer.groups if isinstance(optimizer, (AdamWSpec, MuonSpec)) else ()
