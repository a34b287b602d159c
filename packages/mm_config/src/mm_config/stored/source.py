"""A spec as Python source: a complete experiment file that, run again, gives an equal spec.

Fields at their class's default are left out, as in an experiment written by hand. The file's docstring
holds both ids, so that `mm hash` tells whether a default has changed since.
"""

from __future__ import annotations

import enum
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeAlias

import attrs

from mm_config.schema.errors import Problem, UserError
from mm_config.schema.fields import spec_fields
from mm_config.schema.identity import exact_hash, spec_hash
from mm_config.schema.root import RootSpec
from mm_config.schema.types import class_of, is_spec, is_tuple
from mm_config.stored.describe import describe
from mm_config.stored.source_imports import LINE_LENGTH, free, import_lines, imported
from mm_config.stored.text_width import width_of

_MAIN, _SPEC = "main", "SPEC"


@attrs.frozen
class _Literal:
    """None, a truth value, a number or a string."""

    source: str
    """As Python writes it."""


@attrs.frozen
class _Member:
    """A member of an enum."""

    cls: type[Any]
    """The enum."""
    name: str
    """The member."""


@attrs.frozen
class _Items:
    """A tuple."""

    items: tuple[_Expression, ...]
    """Its items."""


@attrs.frozen(cache_hash=True)
class _Call:
    """A spec: its class and the fields that are written."""

    cls: type[Any]
    """The class."""
    fields: tuple[tuple[str, _Expression], ...]
    """Name and value."""


_Expression: TypeAlias = "_Literal | _Member | _Items | _Call"


_SHOWN = "Written by `mm show --format python`; the ids of the spec were then"


def to_source(spec: RootSpec, *, note: str = _SHOWN) -> str:
    """The text of an experiment file whose `SPEC` is equal to a spec, names and paths included.

    Each field has a line of its own and each list of fields a trailing comma, so that `ruff format` changes
    nothing; imports are sorted as by ruff. Trainings that weights come from, and specs that stand in several
    places, are constants above `SPEC`.

    Args:
        spec: The spec.
        note: Where the file comes from, as its docstring says it before the spec's ids.

    Raises:
        UserError: Some classes can't be imported from a module; each place is named.
    """
    root = _call(spec)
    if problems := list(_unreachable(root, "spec")):
        raise UserError(problems)
    names, imports = imported(_classes(root), (_MAIN, _SPEC))
    constants = _constants(root, {_MAIN, _SPEC, *(here for _, _, here in imports)})
    blocks = [
        _docstring(spec, note),
        "\n".join(import_lines([("mm_config", _MAIN, _MAIN), *imports])),
        *(_assignment(call, _Names(names, constants)) for call in constants),
        _assignment(root, _Names(names, {**constants, root: _SPEC})),
        f'if __name__ == "__main__":\n    {_MAIN}({_SPEC})',
    ]
    return "\n\n".join(blocks) + "\n"


def _expression(value: Any) -> _Expression:
    if is_spec(value):
        return _call(value)
    if isinstance(value, enum.Enum):
        return _Member(type(value), value.name)
    if is_tuple(value):
        return _Items(tuple(map(_expression, value)))
    return _Literal(_quoted(value) if isinstance(value, str) else repr(value).replace("e+", "e"))


def _call(spec: Any) -> _Call:
    """Expressions are compared, not values: to Python, True and 1 and 1.0 are equal."""
    defaults = _defaults(class_of(spec))
    fields = [
        (attribute.alias or attribute.name, attribute.name, _expression(getattr(spec, attribute.name)))
        for attribute in spec_fields(class_of(spec))
    ]
    return _Call(
        class_of(spec),
        tuple((argument, made) for argument, name, made in fields if made != defaults.get(name)),
    )


@cache
def _defaults(cls: type[Any]) -> Mapping[str, _Expression]:
    return {
        attribute.name: _expression(attribute.default)
        for attribute in spec_fields(cls)
        if attribute.default is not attrs.NOTHING
    }


def _inside(expression: _Expression, path: str) -> Iterator[tuple[str, _Expression]]:
    """An expression and all inside it, each with its canonical path."""
    yield path, expression
    if isinstance(expression, _Call):
        for name, value in expression.fields:
            yield from _inside(value, f"{path}.{name}")
    elif isinstance(expression, _Items):
        for index, item in enumerate(expression.items):
            yield from _inside(item, f"{path}.{index}")


def _classes(root: _Call) -> set[type[Any]]:
    return {made.cls for _, made in _inside(root, "spec") if isinstance(made, (_Call, _Member))}


def _unreachable(root: _Call, path: str) -> Iterator[Problem]:
    """Classes that a file of its own can't import."""
    for where, made in _inside(root, path):
        if isinstance(made, (_Call, _Member)) and not _is_importable(made.cls):
            yield Problem(
                where,
                f"{made.cls.__qualname__} is defined in {_origin(made.cls)}, which an experiment file can't "
                "import it from; move the class into a module of a package, or use --format json",
            )


def _is_importable(cls: type[Any]) -> bool:
    found: Any = None if cls.__module__ == "__main__" else sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cls


def _origin(cls: type[Any]) -> str:
    scope = cls.__qualname__.rpartition(".<locals>")[0]
    if scope:
        return f"{scope}() of {cls.__module__}"
    return "the script that runs" if cls.__module__ == "__main__" else f"the script {cls.__module__}"


def _constants(root: _Call, taken: set[str]) -> dict[_Call, str]:
    """The specs that get a name of their own, inner before outer.

    These are the trainings, and the specs of two fields or more that stand in several places. A name
    is that of the field; a field that is only called `spec` says nothing, so the one around it names.
    """
    uses: Counter[_Call] = Counter()
    fields: dict[_Call, str] = {}

    def visit(expression: _Expression, field: str) -> None:
        if isinstance(expression, _Items):
            for item in expression.items:
                visit(item, field)
        elif isinstance(expression, _Call):
            uses[expression] += 1
            if uses[expression] == 1:
                for name, value in expression.fields:
                    visit(value, field if name == "spec" else name)
                fields[expression] = field

    visit(root, "")
    del fields[root]
    names: dict[_Call, str] = {}
    for call, field in fields.items():
        if issubclass(call.cls, RootSpec) or (uses[call] > 1 and len(call.fields) > 1):
            names[call] = free(field.upper(), taken)
            taken.add(names[call])
    return names


def _docstring(spec: RootSpec, note: str) -> str:
    about = _quoted(describe(spec).replace('"', "'"))[1:-1]
    lines = textwrap.wrap(about, LINE_LENGTH - 3, break_long_words=False, break_on_hyphens=False)
    text = note.replace("\\", "\\\\").replace('"', '\\"')
    ids = [f"    spec   {spec_hash(spec)}", f"    exact  {exact_hash(spec)}"]
    return "\n".join([f'"""{lines[0]}', *lines[1:], "", *text.splitlines(), "", *ids, '"""'])


@attrs.frozen
class _Names:
    """How the file calls what it imports and what it defines."""

    classes: Mapping[type[Any], str]
    """Names of classes."""
    constants: Mapping[_Call, str]
    """Names of the specs that stand above."""


def _assignment(call: _Call, names: _Names) -> str:
    others = {other: name for other, name in names.constants.items() if other != call}
    return _laid_out(f"{names.constants[call]} = ", call, 0, "", _Names(names.classes, others))


def _laid_out(prefix: str, expression: _Expression, indent: int, suffix: str, names: _Names) -> str:
    """`prefix expression suffix`: what has items one item a line, each with a comma; short tuples on one."""
    margin, flat = " " * indent, _flat(expression, names)
    line = f"{margin}{prefix}{flat}{suffix}"
    if flat is not None and (not isinstance(expression, _Items) or width_of(line) <= LINE_LENGTH):
        return line
    opening, items = prefix, list[str]()
    if isinstance(expression, _Call):
        opening += names.classes[expression.cls]
        items = [_laid_out(f"{name}=", value, indent + 4, ",", names) for name, value in expression.fields]
    elif isinstance(expression, _Items):
        items = [_laid_out("", item, indent + 4, ",", names) for item in expression.items]
    return "\n".join([f"{margin}{opening}(", *items, f"{margin}){suffix}"])


def _flat(expression: _Expression, names: _Names) -> str | None:
    """The expression on one line; None where a call with fields is inside."""
    if isinstance(expression, _Literal):
        return expression.source
    if isinstance(expression, _Member):
        return f"{names.classes[expression.cls]}.{expression.name}"
    if isinstance(expression, _Items):
        items = [_flat(item, names) for item in expression.items]
        written = [item for item in items if item is not None]
        comma = "," if len(items) == 1 else ""
        return f"({', '.join(written)}{comma})" if len(written) == len(items) else None
    if expression in names.constants:
        return names.constants[expression]
    return None if expression.fields else f"{names.classes[expression.cls]}()"


def _quoted(text: str) -> str:
    """A string literal: the quotes that need fewer escapes, and escapes for what is not printable."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + "".join(_escaped(character, quote) for character in text) + quote


def _escaped(character: str, quote: str) -> str:
    if character in ("\\", quote):
        return f"\\{character}"
    return character if character.isprintable() else repr(character)[1:-1]
