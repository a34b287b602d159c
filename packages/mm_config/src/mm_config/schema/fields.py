"""What a field of a spec declares, and what a class's declarations say."""

from __future__ import annotations

import enum
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

import attrs

from mm_config.schema.types import annotation_problem


class Role(enum.Enum):
    """What a field can change; decides which of the two hashes it enters."""

    SEMANTIC = "semantic"
    """The mathematics or the data order: in spec_hash and exact_hash."""
    EXECUTION = "execution"
    """How it is computed, equal in exact arithmetic: in exact_hash only."""
    LOCATION = "location"
    """A path or a label: in neither hash."""
    SECRET = "secret"
    """The name of an environment variable: in neither hash."""


SEMANTIC, EXECUTION, LOCATION, SECRET = Role


class Effect(enum.Enum):
    """What a change of a field alters: the role says whether a change is in a hash, this says why."""

    MATHEMATICS = "mathematics"
    """Network, noise, loss, optimiser or sampler: what is computed."""
    WEIGHTS = "weights"
    """The weights that it starts from or works with."""
    DATA_ORDER = "data order"
    """Which clips, captions and noise arrive, or when."""
    REQUESTS = "requests"
    """Which videos are made."""
    MEASUREMENT = "measurement"
    """What is measured of the outcome."""
    RESULT = "result"
    """The result, in a way that the spec's class does not tell."""
    EXECUTION = "execution"
    """How it is computed; the result is the same in exact arithmetic."""
    LABEL = "label"
    """A name or a path."""


class Layer(enum.Enum):
    """Who fixes a field; each layer of a spec has a hash of its own."""

    MODEL = "model"
    """The weights."""
    TRAINING = "training"
    """Who trains."""
    INFERENCE = "inference"
    """Who sets generation up."""
    REQUEST = "request"
    """Who asks for a video."""


class Group(enum.Enum):
    """The groups of a spec's page, in their order."""

    MODEL = "Model"
    WEIGHTS = "Weights"
    NOISE = "Noise and loss"
    SAMPLING = "Sampling"
    DATA = "Data"
    OPTIMISATION = "Optimisation"
    VIDEOS = "Videos"
    OTHERS = "Others"
    """Semantic fields of classes that say no group."""
    EXECUTION = "Execution"
    PLACES = "Names and paths"


def narrowed(outer: Role, inner: Role) -> Role:
    """The role of a field inside a field: the one that enters fewer hashes."""
    order = list(Role)
    return max(outer, inner, key=order.index)


class _Absent(enum.Enum):
    ABSENT = "absent"


ABSENT = _Absent.ABSENT
"""A field without a neutral value: present at its class's birth, so always emitted."""


@attrs.frozen
class FieldInfo:
    """What `field()` declares beside the type and the default."""

    role: Role = SEMANTIC
    """What it can change, and so which hashes it enters."""
    unit: str | None = None
    """Of a number, such as `px` or `steps`."""
    ge: float | None = None
    """Least value."""
    gt: float | None = None
    """What the value is above."""
    le: float | None = None
    """Greatest value."""
    lt: float | None = None
    """What the value is below."""
    min_length: int | None = None
    """Smallest length of a string or a tuple."""
    neutral: Any = ABSENT
    """The value that reproduces the class before it had the field; absent where it always had."""
    wire: str | None = None
    """Its name in canonical bytes, where its Python name is another now."""
    by_hash: bool = False
    """Whether canonical bytes hold the hash of the spec in it instead of the spec."""
    effect: Effect | None = None
    """What a change of it alters."""
    effects: Mapping[str, Effect] = {}
    """Other effects by the path inside the field."""
    layer: Layer | None = None
    """Who fixes it."""
    group: Group | None = None
    """Where the spec's page has it."""
    short_name: str | None = None
    """Its alias on the command line."""
    short_names: tuple[str, ...] = ()
    """Paths inside the field whose last segments are their aliases."""


def field(
    *,
    default: Any = attrs.NOTHING,
    role: Role = SEMANTIC,
    unit: str | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    min_length: int | None = None,
    neutral: Any = ABSENT,
    wire: str | None = None,
    by_hash: bool = False,
    effect: Effect | None = None,
    effects: Mapping[str, Effect] | None = None,
    layer: Layer | None = None,
    group: Group | None = None,
    short_name: str | None = None,
    short_names: tuple[str, ...] = (),
) -> Any:
    """Declares a field of a spec.

    `effect`, `layer`, `group` and short names are for the fields of what is run or asked for as a whole; they
    hold for all that is inside the field.

    Args:
        default: The value when none is given; without one the field is required.
        role: What the field can change, see `Role`.
        unit: Shown in the help and in diffs (`s`, `pixels`, `clips`).
        ge, gt, le, lt: The range, checked on the value or on each number inside a tuple.
        min_length: Smallest length of a string or a tuple.
        neutral: For a field added after its class's birth: the value that reproduces the
            behaviour before it existed, frozen for ever. Emitted in canonical bytes only where the
            value differs from it.
        wire: The name in files and canonical bytes, when it is not the Python name.
        by_hash: The value is a root spec that enters the identity by its own spec_hash.
        effect: What a change of the field alters; for semantic fields.
        effects: Other effects by the path inside the field (`weights`).
        layer: Who fixes the field, where that is not the layer of its class.
        group: Where the page of `mm show` has the field; for semantic fields.
        short_name: Its alias on the command line. (To type checkers, `alias` would rename the argument.)
        short_names: Paths inside the field whose last segments are their aliases on the command line.
    """
    value = (role, unit, ge, gt, le, lt, min_length, neutral, wire, by_hash)
    info = FieldInfo(*value, effect, effects or {}, layer, group, short_name, short_names)
    return attrs.field(default=default, metadata={"mm": info})


_UNDECLARED = FieldInfo()


def info_of(attribute: attrs.Attribute[Any]) -> FieldInfo:
    """The declaration of a field."""
    return attribute.metadata.get("mm", _UNDECLARED)


def wire_name(attribute: attrs.Attribute[Any]) -> str:
    """The name of a field in files and canonical bytes."""
    return info_of(attribute).wire or attribute.name


def spec_fields(cls: type[Any]) -> tuple[attrs.Attribute[Any], ...]:
    """The fields of a spec class, in order of declaration."""
    return attrs.fields(cls)


@cache
def field_types(cls: type[Any]) -> dict[str, Any]:
    """The resolved annotation of each field.

    Raises:
        TypeError: A field's type is none that a spec can hold.
    """
    hints = typing.get_type_hints(cls)
    types = {attribute.name: hints[attribute.name] for attribute in spec_fields(cls)}
    for name, annotation in types.items():
        if message := annotation_problem(annotation):
            raise TypeError(f"{cls.__module__}.{cls.__qualname__}.{name}: {message}")
    return types
