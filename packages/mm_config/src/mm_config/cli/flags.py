"""The flags of a spec: one per leaf, an alias for some, and what was meant by a flag that is none."""

from __future__ import annotations

import difflib
import enum
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, cast

import attrs

from mm_config.schema.evolve import Leaf, leaves
from mm_config.schema.root import RootSpec, aliases_of
from mm_config.schema.types import describe

if typing.TYPE_CHECKING:
    from tyro.constructors import PrimitiveConstructorSpec


@attrs.frozen
class Flag:
    """One spelling of a leaf on the command line."""

    leaf: Leaf
    """What it sets."""
    alias: bool = False
    """Whether it is a short name beside the canonical one."""
    negated: bool = False
    """Whether it is the `no_` form of a bool, which stands for False."""


def flags_of(spec: RootSpec) -> dict[str, Flag]:
    """Each spelling of a spec's leaves on the command line, normalised."""
    flags: dict[str, Flag] = {}
    by_path = {leaf.path: leaf for leaf in leaves(spec)}
    for path, leaf in by_path.items():
        flags[f"spec.{path}"] = Flag(leaf)
        if leaf.type is bool:
            section, _, name = f"spec.{path}".rpartition(".")
            flags[f"{section}.no_{name}"] = Flag(leaf, negated=True)
    for alias, path in aliases_of(type(spec)).items():
        if path in by_path:
            leaf = by_path[path]
            flags[f"spec.{alias}"] = Flag(leaf, alias=True)
            if leaf.type is bool:
                flags[f"spec.no_{alias}"] = Flag(leaf, alias=True, negated=True)
    return flags


def is_settable(kind: Any) -> bool:
    """Whether a type can be written as text; a choice of class can't, it is made in Python."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (tuple, typing.Union, types.UnionType):
        return all(argument is Ellipsis or is_settable(argument) for argument in arguments)
    if kind in (None, type(None), bool, int, float, str):
        return True
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def chosen_in_python(kind: Any) -> str:
    """What to say of a field that is not settable."""
    return f"holds a {describe(kind)}, which is chosen in the experiment's Python"


@cache
def as_text(kind: Any) -> PrimitiveConstructorSpec[Any]:
    """tyro's rule for a type as text: number of words, metavar, choices and the function that parses it."""
    import tyro
    from tyro.constructors import ConstructorRegistry, PrimitiveTypeInfo, UnsupportedTypeAnnotationError

    markers: set[Any] = {tyro.conf.EnumChoicesFromValues}
    info = PrimitiveTypeInfo.make(kind, markers)  # pyright: ignore[reportUnknownMemberType]
    rule = cast(
        "PrimitiveConstructorSpec[Any] | UnsupportedTypeAnnotationError",
        ConstructorRegistry.get_primitive_spec(info),  # pyright: ignore[reportUnknownMemberType]
    )
    assert not isinstance(rule, UnsupportedTypeAnnotationError), rule
    return rule


def unknown_flag_message(flag: str, flags: Mapping[str, Flag], other_flags: Iterable[str]) -> str:
    """What to say of a flag that is none: the nearest ones, aliases with what they stand for.

    Args:
        flag: As it was typed.
        flags: The spec's, by normalised spelling.
        other_flags: The options beside the spec.
    """
    key = normalised(flag)
    inside = [name for name in flags if name.startswith(f"{key}.")]
    if inside:
        return f"is a group of fields, not a field: {', '.join(f'--{name}' for name in inside[:4])}, ..."
    for name, known in flags.items():
        if key.startswith(f"{name}.") and not is_settable(known.leaf.type):
            state = "None" if known.leaf.value is None else "empty"
            return f"spec.{known.leaf.path} is {state} here; it {chosen_in_python(known.leaf.type)}"
    options = {normalised(option): option for option in other_flags}
    by_leaf: dict[str, str] = {}
    for name in _nearest(key, [*flags, *options]):
        if name in options:
            by_leaf[name] = options[name]
        else:
            path = flags[name].leaf.path
            by_leaf.setdefault(path, f"--{name} (--spec.{path})" if flags[name].alias else f"--{name}")
    shown = list(by_leaf.values())[:3]
    return f"unknown flag; did you mean {' or '.join(shown)}?" if shown else "unknown flag; see --help"


def normalised(flag: str) -> str:
    """A flag with underscores and no leading dashes, so that each has one spelling."""
    return flag.removeprefix("--").replace("-", "_")


def _nearest(flag: str, known: Iterable[str]) -> list[str]:
    """The names about as near as the nearest one, nearest first; none where none is near."""
    likeness = {name: _likeness(flag, name) for name in known}
    least = max(0.7, max(likeness.values())[0] - 0.1)
    near = [name for name in likeness if likeness[name][0] >= least]
    return sorted(near, key=likeness.__getitem__, reverse=True)


def _likeness(flag: str, known: str) -> tuple[float, float]:
    """How alike the names at the ends are, then the whole paths."""
    end, known_end = flag.rpartition(".")[2], known.rpartition(".")[2]
    within = len(end) > 2 and (end in known_end or known_end in end)
    ends = difflib.SequenceMatcher(None, end, known_end).ratio()
    return max(ends, 0.8 if within else 0), difflib.SequenceMatcher(None, flag, known).ratio()
