"""The tables of variables on the page about NPUs, from the classes and tables that the code works by."""

from __future__ import annotations

import enum
import typing
from collections.abc import Iterator
from typing import Any

from mm_config.npu.advice import ADVICE
from mm_config.npu.variables import VARIABLES
from mm_config.schema.evolve import Leaf, leaves
from mm_config.schema.fields import FieldInfo
from mm_config.specs.npu import NpuSpec


def variables_table() -> str:
    """Every field with its variable, its values and what it does, in Markdown."""
    names = {variable.field: variable.name for variable in VARIABLES}
    rows = [_row(leaf, names[leaf.path.partition(".")[0]]) for leaf in leaves(NpuSpec())]
    return _table(("`runtime.npu.`", "Variable", "Values", "What it says"), rows)


def advice_table() -> str:
    """What MindSpeed-MM's scripts set beside what is advised, in Markdown."""
    rows = [
        (
            f"`{one.variable}`",
            one.unset,
            f"`{one.mindspeed}`",
            f"`{one.advised}`" if one.advised else "unset",
            one.why,
        )
        for one in ADVICE
    ]
    return _table(("Variable", "Unset", "MindSpeed-MM", "Advised", "Why"), rows)


def _row(leaf: Leaf, variable: str) -> tuple[str, ...]:
    about = leaf.help.removeprefix(f"{variable}: ")
    return f"`{leaf.path}`", f"`{variable}`", _values(leaf.type, leaf.info), about[0].upper() + about[1:]


def _values(kind: Any, info: FieldInfo) -> str:
    (plain,) = (one for one in typing.get_args(kind) or (kind,) if one not in (type(None), ...))
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        return ", ".join(str(member.value) for member in plain)
    if plain is bool:
        return "True, False"
    unit = f" {info.unit}" if info.unit else ""
    if info.le is not None:
        return f"{info.ge:,} to {info.le:,}{unit}"
    if info.lt is not None:
        return f"between {info.gt} and {info.lt}"
    if info.ge is not None:
        return f"numbers from {info.ge}" if info.min_length else f"from {info.ge}{unit}"
    return "text" if plain is str else "ranges"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(_lines(head, rows))


def _lines(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)
