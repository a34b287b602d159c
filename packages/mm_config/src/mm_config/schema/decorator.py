"""The `@spec` decorator: frozen attrs classes whose fields carry a role, a range and a unit.

A spec holds only None, bool, int, float, str, enum, tuple and other specs. Nothing is derived at
construction: what follows from other fields is a property or a function of the finished spec.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast, dataclass_transform

import attrs

from mm_config.schema.errors import SpecError
from mm_config.schema.fields import Layer, field, spec_fields, wire_name
from mm_config.schema.ranges import field_problems
from mm_config.schema.root import declaration_problems

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def spec(tag: str, *, schema: int = 1, layer: Layer | None = None) -> Callable[[type[T]], type[T]]:
    """Makes a class a spec: frozen, keyword-only, checked at construction.

    Args:
        tag: The class's stable name in files and hashes; never its Python path.
        schema: Bumped when the class changes shape other than by a field with `neutral`; the class
            then has a static method `migrate(payload: dict, schema: int) -> dict` that turns the
            fields of one schema, by their wire names, into those of the next one.
        layer: The layer of the fields that say none of their own; by default that of the class's base.

    Raises:
        TypeError: The tag is taken by another class, or the class has no docstring, sets fields
            after construction, has a schema above 1 and no `migrate`, two fields of one name, or a
            field that says too little, or what can't be, of its effect, layer, group or aliases.
    """

    def decorate(cls: type[T]) -> type[T]:
        if not cls.__doc__:
            raise TypeError(f"{cls.__name__}: a spec class needs a docstring, it is its help text")
        if "__attrs_post_init__" in vars(cls):
            raise TypeError(f"{cls.__name__}: nothing is derived at construction; use a property")
        if schema > 1 and not isinstance(vars(cls).get("migrate"), staticmethod):
            raise TypeError(f"{cls.__name__}: schema {schema} needs a `migrate` static method")
        known = _REGISTRY.get(tag)
        if known is not None and _origin(known) != _origin(cls):
            raise TypeError(f"tag {tag!r} is taken by {_origin(known)}; {_origin(cls)} needs one of its own")

        def check_fields(self: Any) -> None:
            if found := list(field_problems(self)):
                raise SpecError(found)

        cls.__attrs_post_init__ = check_fields  # type: ignore[attr-defined]
        # attrs would compile these anew for each class, a third of the time that importing specs takes.
        cls.__eq__, cls.__hash__, cls.__repr__ = _equal, _hash, _repr  # type: ignore[assignment,method-assign]
        made: Any = attrs.frozen(kw_only=True, eq=False, repr=False)(cls)
        names = [wire_name(attribute) for attribute in spec_fields(made)]
        if wrong := [name for name in names if names.count(name) > 1 or name.startswith("~")]:
            raise TypeError(f"{cls.__name__}: {wrong[0]!r} can't be the name of two fields or start with ~")
        made.__spec_tag__ = tag
        made.__spec_schema__ = schema
        made.__spec_layer__ = layer or getattr(cls, "__spec_layer__", None)
        if problem := next(declaration_problems(made), None):
            raise TypeError(f"{cls.__name__}.{problem}")
        _REGISTRY[tag] = made
        return cast(type[T], made)

    return decorate


def _values(value: Any) -> tuple[Any, ...]:
    return tuple([getattr(value, attribute.name) for attribute in value.__attrs_attrs__])


def _equal(self: Any, other: object) -> bool:
    return NotImplemented if type(other) is not type(self) else _values(self) == _values(other)


def _hash(self: Any) -> int:
    return hash((self.__spec_tag__, _values(self)))


def _repr(self: Any) -> str:
    fields = (f"{attribute.name}={getattr(self, attribute.name)!r}" for attribute in self.__attrs_attrs__)
    return f"{type(self).__name__}({', '.join(fields)})"


_REGISTRY: dict[str, type[Any]] = {}


def _origin(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def registered_specs() -> dict[str, type[Any]]:
    """All spec classes by wire tag, as registered so far."""
    return dict(_REGISTRY)


def tag_of(value: Any) -> str:
    """The wire tag of a spec or a spec class."""
    return value.__spec_tag__


def schema_of(value: Any) -> int:
    """The schema number of a spec or a spec class."""
    return value.__spec_schema__
