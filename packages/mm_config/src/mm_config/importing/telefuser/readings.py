"""A dump as TeleFuser's configuration objects, and what readings of it give.

A reading is a function of the dump: it yields what it says of the spec, tells of keys, or finds wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import attrs

from mm_config.importing.rows import Row
from mm_config.importing.telefuser.families import Known
from mm_config.importing.verdict import Verdict
from mm_config.stored.parsing import shown_key

Classes: TypeAlias = Mapping[str, Mapping[str, Row]]
"""The rows of TeleFuser's classes by class and field."""


@attrs.frozen
class Value:
    """One value of the dump, or a class's default where the dump lacks the key."""

    value: Any
    """What it is."""
    key: str
    """Path within the dump."""
    line: int
    """From 1."""
    given: bool = True
    """Whether the dump has it."""
    row: Row | None = None
    """What the table says of it; None where it does not know the key."""


@attrs.frozen
class Config:
    """One object of the dump."""

    owner: str
    """Its class, as the table calls it."""
    key: str
    """Path within the dump."""
    line: int
    """From 1."""
    fields: Mapping[str, Any]
    """What the dump gives: a `Value`, a `Config`, or a tuple of them."""
    classes: Classes = attrs.field(repr=False)
    """What there is in a dump."""
    given: bool = True
    """Whether the dump has it."""

    def at(self, name: str) -> Value:
        """A field's value, its class's default where it is missing."""
        default = self.classes[self.owner][name].default
        return self.fields.get(name) or Value(default, joined(self.key, name), self.line, given=False)

    def inside(self, name: str) -> Config:
        """The object under a field; one of defaults where it is missing or null."""
        found = self.fields.get(name)
        owner = self.classes[self.owner][name].inside
        if isinstance(found, Config):
            return found
        return Config(owner, joined(self.key, name), self.line, {}, self.classes, given=False)

    def many(self, name: str) -> tuple[Config, ...]:
        """The objects in a list."""
        return self.fields.get(name) or ()


@attrs.frozen
class Said:
    """A value of the spec."""

    path: str
    """Canonical, without `spec.`."""
    value: Any
    """The field's, or a spec of defaults that `parts` are put into."""
    because: Value
    """What of the dump says it."""
    parts: Mapping[str, tuple[Any, Value]] = {}
    """Fields inside, each with what says it."""

    @property
    def leaves(self) -> Iterator[tuple[str, Any, Value]]:
        """Path, value and reason of the field and of all inside."""
        yield self.path, self.value, self.because
        for name, (value, because) in self.parts.items():
            yield f"{self.path}.{name}", value, because


@attrs.frozen
class Told:
    """What became of a key, where its row does not say it."""

    because: Value | Config
    """The key; all keys inside of an object."""
    verdict: Verdict
    """What became of it."""
    text: str
    """Why."""

    def covers(self, key: str) -> bool:
        """Whether it is about a key."""
        own = self.because.key
        return key == own or (isinstance(self.because, Config) and key.startswith(f"{own}."))


@attrs.frozen
class Wrong:
    """Why there is no spec for the dump."""

    because: Value | Config
    """What is to blame."""
    text: str
    """What is wrong with it."""


@attrs.frozen
class Dump:
    """What readings read."""

    root: Config
    """The whole."""
    pipeline: Config
    """`layer2_inference_config`."""
    known: Known
    """The family."""
    networks: tuple[Config, ...]
    """Of the single network, or of the high-noise and the low-noise expert."""
    encoders: Mapping[str, Config]
    """By what they are in our spec."""


Finding: TypeAlias = "Said | Told | Wrong"
Reading: TypeAlias = Callable[[Dump], Iterator[Finding]]


def composed(
    readings: Iterable[Reading], dump: Dump, damaged: Collection[str] = ()
) -> tuple[dict[str, Said], list[Told | Wrong]]:
    """All readings in order. What two say differently is wrong, or of what changes no result a conflict.

    Args:
        readings: Functions of the dump.
        dump: What they read.
        damaged: Keys whose findings are not to be believed.
    """
    said: dict[str, Said] = {}
    rest: list[Told | Wrong] = []
    for finding in (finding for reading in readings for finding in reading(dump)):
        if is_within(finding.because.key, damaged):
            continue
        if isinstance(finding, Said):
            rest += _differences(said.setdefault(finding.path, finding), finding)
        else:
            rest.append(finding)
    return said, rest


def _differences(first: Said, second: Said) -> Iterator[Told | Wrong]:
    """What two readings of one field say differently; the first counts."""
    mine = {path: (value, because) for path, value, because in first.leaves}
    for path, value, because in second.leaves:
        counts, reason = mine.get(path, (value, because))
        if counts == value:
            continue
        if path.startswith("runtime."):
            yield Told(because, Verdict.CONFLICT, f"the spec has one {path} for all; it takes {reason.key}")
        else:
            yield Wrong(because, f"differs from {reason.key}, but both experts share spec.{path}")


def taken(config: Config, name: str) -> tuple[Any, Value]:
    """A field's value and the field itself, as `Said.parts` wants them."""
    value = config.at(name)
    return value.value, value


def joined(key: str, name: str) -> str:
    """A key inside of another."""
    return f"{key}.{shown_key(name)}" if key else shown_key(name)


def is_within(key: str, keys: Iterable[str]) -> bool:
    """Whether a key is one of others, or inside of one."""
    return any(f"{key}.".startswith(f"{other}.") for other in keys)
