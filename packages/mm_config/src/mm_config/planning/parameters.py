"""Which of a network's parameters a pattern means, and how many they are."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from re import fullmatch

import attrs

from mm_config.rules.patterns import matches, matches_parameter
from mm_config.specs.kinds import ModelSpec, Split
from mm_config.specs.lora import LoraSpec
from mm_config.specs.parallel import FsdpSpec
from mm_config.specs.serving import QuantizationSpec


@attrs.frozen
class Parameter:
    """A parameter of a network."""

    name: str
    """As in the network's state."""
    shape: tuple[int, ...]
    """Its dimensions."""
    modules: tuple[str, ...]
    """The modules around it, innermost first."""

    @property
    def size(self) -> int:
        """Its values."""
        return math.prod(self.shape)

    @property
    def is_linear(self) -> bool:
        """Whether it is the matrix of a linear layer."""
        return len(self.shape) == 2 and self.name.endswith(".weight")


Shapes = tuple[tuple[tuple[int, ...], bool], ...]
"""Of a unit's parameters, each with whether it is trained."""


@attrs.frozen
class Units:
    """How a network's parameters are spread over FSDP units."""

    largest: int
    """Values of the largest wrapped unit."""
    wrapped: int
    """Values of all wrapped units."""
    root: int
    """Values that no pattern takes."""
    ignored: int
    """Values that stay whole on every rank."""


@cache
def parameters(model: ModelSpec) -> tuple[Parameter, ...]:
    """The network's parameters in its order."""
    return tuple(Parameter(name, shape, _modules(name)) for name, shape in model.parameter_shapes().items())


def trainable_count(model: ModelSpec, frozen: tuple[str, ...], lora: LoraSpec | None) -> int:
    """Values that gradients are taken of: the adapters', or the network's without the frozen ones."""
    if lora is not None:
        return adapter_count(model, lora.rank, lora.targets)
    return model.parameter_count() - _matching_count(model, frozen)


@cache
def adapter_count(model: ModelSpec, rank: int, targets: tuple[str, ...]) -> int:
    """Values of low-rank adapters beside the linear layers that the targets match."""
    return sum(
        rank * sum(parameter.shape)
        for parameter in parameters(model)
        if parameter.is_linear and _any_matches(parameter.modules[:1], targets)
    )


@cache
def block_matrices(
    model: ModelSpec, frozen: tuple[str, ...], lora: LoraSpec | None = None, without: tuple[str, ...] = ()
) -> Shapes:
    """The trained matrices inside blocks, which Muon takes, but for those in some modules."""
    found: list[tuple[int, ...]] = []
    for parameter in parameters(model):
        inside = any(part.isdecimal() for part in parameter.name.split("."))
        if len(parameter.shape) != 2 or not inside or _any_matches(parameter.modules, without):
            continue
        if lora is None and not _is_named(parameter, frozen):
            found.append(parameter.shape)
        if lora is not None and parameter.is_linear and _any_matches(parameter.modules[:1], lora.targets):
            found += [(lora.rank, parameter.shape[1]), (parameter.shape[0], lora.rank)]
    return tuple((shape, True) for shape in found)


@cache
def unit_shapes(
    model: ModelSpec,
    fsdp: FsdpSpec,
    frozen: tuple[str, ...] = (),
    lora: LoraSpec | None = None,
    tensor: int = 1,
) -> tuple[dict[Shapes, int], Shapes, dict[Shapes, int]]:
    """What the FSDP units hold that patterns over module names make, adapters beside the weights.

    A parameter belongs to the innermost unit; blocks that follow one another share one. Of matrices that
    tensor ranks share it is one rank's part.

    Returns:
        The wrapped units by what they hold, with the number of those alike; the root; what is ignored.
    """
    found: defaultdict[str, list[tuple[tuple[int, ...], bool]]] = defaultdict(list)
    whole: defaultdict[str, list[tuple[tuple[int, ...], bool]]] = defaultdict(list)
    plan = model.tensor_plan() if tensor > 1 else {}
    for parameter in parameters(model):
        split = next(
            (one for name, one in plan.items() if _any_matches(parameter.modules[:1], (name,))), None
        )
        ignored = next((name for name in parameter.modules if _any_matches((name,), fsdp.ignore)), None)
        unit = next((name for name in parameter.modules if _any_matches((name,), fsdp.wrap)), "")
        if ignored is None and _is_block(unit):
            unit = str(int(unit.rpartition(".")[2]) // fsdp.blocks_per_unit)
        shapes = found[unit] if ignored is None else whole[ignored]
        shape = _split(parameter.shape, split, tensor)
        shapes.append((shape, lora is None and not _is_named(parameter, frozen)))
        if lora is not None and parameter.is_linear and _any_matches(parameter.modules[:1], lora.targets):
            shapes += [((lora.rank, shape[1]), True), ((shape[0], lora.rank), True)]
    root = found.pop("", [])
    return dict(Counter(map(tuple, found.values()))), tuple(root), dict(Counter(map(tuple, whole.values())))


@cache
def splits_of_block(model: ModelSpec) -> Counter[Split]:
    """How many modules of one block tensor ranks share in each way."""
    modules = {name for parameter in parameters(model) for name in parameter.modules}
    inside = [name for name in modules if name.startswith("blocks.0.")]
    plan = model.tensor_plan().items()
    return Counter(split for pattern, split in plan for name in inside if matches(name, pattern))


@cache
def units(model: ModelSpec, fsdp: FsdpSpec) -> Units:
    """The values of the FSDP units, without adapters."""
    wrapped, root, ignored = unit_shapes(model, fsdp)
    return Units(
        largest=max(map(_values, wrapped), default=0),
        wrapped=sum(_values(shapes) * count for shapes, count in wrapped.items()),
        root=_values(root),
        ignored=sum(_values(shapes) * count for shapes, count in ignored.items()),
    )


def padded_values(shapes: Shapes, ranks: int, *, trained: bool = False) -> int:
    """A rank's values of parameters that ranks share by rows, each filled up to whole rows; the trained ones
    alone if asked for."""
    return sum(
        -(-shape[0] // ranks) * math.prod(shape[1:]) if shape else 1
        for shape, is_trained in shapes
        if is_trained or not trained
    )


@cache
def matched_blocks(model: ModelSpec, patterns: tuple[str, ...]) -> int:
    """Blocks, modules such as `blocks.3`, that patterns match as a whole."""
    modules = {name for parameter in parameters(model) for name in parameter.modules}
    return min(sum(_any_matches((name,), patterns) for name in filter(_is_block, modules)), model.num_layers)


@cache
def quantized_count(model: ModelSpec, quantization: QuantizationSpec) -> int:
    """Values of the linear layers' matrices that are stored with few bits."""
    return sum(parameter.size for parameter in parameters(model) if _is_quantized(parameter, quantization))


@cache
def quantized_rows(model: ModelSpec, quantization: QuantizationSpec) -> int:
    """Rows of those matrices."""
    return sum(
        parameter.shape[0] for parameter in parameters(model) if _is_quantized(parameter, quantization)
    )


@cache
def quantized_layers(model: ModelSpec, quantization: QuantizationSpec) -> frozenset[str]:
    """Names of the linear layers whose matrices are stored with few bits."""
    chosen = (parameter.name for parameter in parameters(model) if _is_quantized(parameter, quantization))
    return frozenset(name.removesuffix(".weight") for name in chosen)


@cache
def float32_count(model: ModelSpec, quantization: QuantizationSpec | None) -> int:
    """Values that stay float32 whatever the network computes in."""
    return sum(
        parameter.size
        for parameter in parameters(model)
        if model.stays_float32(parameter.name)
        and not (quantization is not None and _is_quantized(parameter, quantization))
    )


@cache
def block_count(model: ModelSpec) -> int:
    """Values of all blocks together: the items of the network's lists, such as `blocks.0`."""
    return sum(one.size for one in parameters(model) if fullmatch(r"\w+\.\d+\..+", one.name))


@cache
def _matching_count(model: ModelSpec, patterns: tuple[str, ...]) -> int:
    return sum(parameter.size for parameter in parameters(model) if _is_named(parameter, patterns))


def _is_quantized(parameter: Parameter, quantization: QuantizationSpec) -> bool:
    return (
        parameter.is_linear
        and _any_matches(parameter.modules, quantization.modules)
        and not _any_matches(parameter.modules, quantization.skip)
    )


def _is_named(parameter: Parameter, patterns: tuple[str, ...]) -> bool:
    return any(matches_parameter(parameter.name, pattern) for pattern in patterns)


def _any_matches(names: Iterable[str], patterns: tuple[str, ...]) -> bool:
    return any(matches(name, pattern) for name in names for pattern in patterns)


def _is_block(name: str) -> bool:
    return name.count(".") == 1 and name.rpartition(".")[2].isdecimal()


def _modules(name: str) -> tuple[str, ...]:
    parts = name.split(".")
    return tuple(".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1))


def _split(shape: tuple[int, ...], split: Split | None, ranks: int) -> tuple[int, ...]:
    if split in (Split.OUTPUTS, Split.NORM):
        return shape[0] // ranks, *shape[1:]
    return (shape[0], shape[1] // ranks) if split is Split.INPUTS and len(shape) == 2 else shape


def _values(shapes: Shapes) -> int:
    return padded_values(shapes, 1)
