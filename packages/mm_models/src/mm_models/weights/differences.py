"""How some weights differ from what a network wants, and why that may be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import attrs
import torch

from mm_config.schema import Problem
from mm_models.weights.published import Shapes, exact_families, guess
from mm_models.weights.quantised import FLOAT8
from mm_models.weights.tensors import StoredTensor

SHOWN = 10
"""How many tensors are named of each kind of difference."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What weights may be stored in, beside 8-bit floats; integers of a quantised file mean nothing here."""


@attrs.frozen
class Differences:
    """Tensors that are not as they are wanted, by name."""

    missing: tuple[str, ...]
    """Not there."""
    extra: tuple[str, ...]
    """There, and not wanted."""
    misshapen: tuple[str, ...]
    """With both shapes."""
    incomplete: tuple[str, ...]
    """With the values that are there and that are wanted."""
    wrong_dtype: tuple[str, ...]
    """With the dtype."""
    settings: tuple[str, ...]
    """What a configuration beside the weights tells otherwise, as sentences."""
    cause: str | None
    """What probably happened."""

    def __bool__(self) -> bool:
        return any(names for _, names in self.groups()) or bool(self.settings)

    def groups(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """What is wrong, and the first tensors of which it is; then how many more there are."""
        found = {
            "missing": self.missing,
            "not wanted": self.extra,
            "of another shape": self.misshapen,
            "not whole": self.incomplete,
            "of a dtype that is not loaded (allowed: float32, bfloat16, float16, float8)": self.wrong_dtype,
        }
        for what, names in found.items():
            if names:
                more = (f"and {len(names) - SHOWN} more",) if len(names) > SHOWN else ()
                yield f"{len(names)} {_tensors(names)} {what}", (*names[:SHOWN], *more)

    def lines(self) -> Iterator[str]:
        """One line for each kind of difference, with the first names, and one for the cause."""
        yield from (f"{what}: {', '.join(names)}" for what, names in self.groups())
        yield from self.settings
        if self.cause:
            yield f"likely cause: {self.cause}"

    def page(self) -> Iterator[str]:
        """The same, with a line for each name."""
        for what, names in self.groups():
            yield from (f"{what}:", *(f"  {name}" for name in names))
        yield from self.settings
        if self.cause:
            yield f"likely cause: {self.cause}"

    def problems(self, path: str) -> list[Problem]:
        """The lines as problems of a file or a folder."""
        return [Problem(path, line) for line in self.lines()]


def compare(
    stored: Mapping[str, StoredTensor],
    wanted: Shapes,
    dtypes: Mapping[str, torch.dtype] | None = None,
    settings: tuple[str, ...] = (),
) -> Differences:
    """Holds weights against the names and shapes of a network.

    Args:
        stored: By our names.
        wanted: By our names.
        dtypes: What tensors of the network have: stored in its own dtype, one is never wrong.
        settings: What a configuration beside the weights tells otherwise.
    """
    own = dtypes or {}
    both = [name for name in wanted if name in stored]
    missing = tuple(name for name in wanted if name not in stored)
    extra = tuple(name for name in stored if name not in wanted)
    misshapen = tuple(
        f"{name} is {stored[name].shape}, {wanted[name]} is wanted"
        for name in both
        if stored[name].shape != wanted[name]
    )
    incomplete = tuple(
        f"{name} has {_values(stored[name])} of {_size(wanted[name])} values"
        for name in both
        if stored[name].shape == wanted[name] and not stored[name].is_whole
    )
    wrong = tuple(
        f"{name} is {str(stored[name].dtype).removeprefix('torch.')}"
        for name in both
        if stored[name].dtype not in (*DTYPES, *FLOAT8, own.get(name))
    )
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    cause = _cause(shapes, wanted) if missing or extra or misshapen else None
    return Differences(missing, extra, misshapen, incomplete, wrong, settings, cause)


def _cause(stored: Shapes, wanted: Shapes) -> str | None:
    theirs, ours = exact_families(stored), exact_families(wanted)
    if theirs:
        spec = f"the spec is {_any(ours)}" if ours else "the spec is of no known family"
        return f"these are weights of {_any(theirs)}, {spec}"
    found, asked = guess(stored, {}), guess(wanted, {})
    if found and asked and type(found.spec) is type(asked.spec):
        differing = [
            f"{field.name} {getattr(found.spec, field.name)} instead of {getattr(asked.spec, field.name)}"
            for field in attrs.fields(type(found.spec))
            if getattr(found.spec, field.name) != getattr(asked.spec, field.name)
            and field.name not in found.unseen
        ]
        if differing:
            return f"these are weights of another network: {', '.join(differing)}"
    if any(wanted.get(name) != shape for name, shape in stored.items()):
        return None
    absent = sorted(_blocks(wanted) - _blocks(stored))
    if absent:
        span = f"{len(absent)} blocks from {absent[0]} to {absent[-1]}"
        return f"nothing of {span} is there: this is one of several files"
    return None


def _blocks(names: Iterable[str]) -> set[int]:
    return {int(found[1]) for name in names if (found := re.match(r"blocks\.(\d+)\.", name))}


def _any(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (or {', '.join(names[1:])})"


def _tensors(names: tuple[str, ...]) -> str:
    return "tensor is" if len(names) == 1 else "tensors are"


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _values(tensor: StoredTensor) -> int:
    return sum(_size(piece.sizes) for piece in tensor.pieces)
