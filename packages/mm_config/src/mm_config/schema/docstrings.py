"""The help text of a field: the string literal that follows it in the class's source."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from typing import Any

from mm_config.schema.types import is_tuple


@cache
def help_texts(cls: type[Any]) -> dict[str, str]:
    """The docstring of each documented field of a class and its bases, on one line each."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        texts |= _class_docs(base.__module__).get(base.__qualname__, {})
    return texts


def shown_by_help(value: Any) -> Any:
    """The same value; where it is a class with slots, `help` shows the docstrings of its fields."""
    slots = vars(value).get("__slots__") if isinstance(value, type) else None
    if is_tuple(slots):
        value.__slots__ = _Slots(value, slots)
    return value


class _Slots(dict[str, str | None]):
    """The slots of a class, each with its field's docstring, which is read when `help` asks for it."""

    def __init__(self, cls: type[Any], names: Iterable[str]) -> None:
        super().__init__(dict.fromkeys(names))
        self._cls = cls

    def __getitem__(self, name: str) -> str | None:
        return help_texts(self._cls).get(name)


@cache
def _class_docs(module: str) -> dict[str, dict[str, str]]:
    loaded = sys.modules.get(module)
    if loaded is None or not hasattr(loaded, "__file__"):
        return {}
    docs: dict[str, dict[str, str]] = {}
    _collect(ast.parse(inspect.getsource(loaded)).body, "", docs)
    return docs


def _collect(body: list[ast.stmt], prefix: str, docs: dict[str, dict[str, str]]) -> None:
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            docs[prefix + statement.name] = dict(_attribute_docs(statement.body))
            _collect(statement.body, f"{prefix}{statement.name}.", docs)
        elif isinstance(statement, ast.FunctionDef):
            _collect(statement.body, f"{prefix}{statement.name}.<locals>.", docs)


def _attribute_docs(body: list[ast.stmt]) -> list[tuple[str, str]]:
    return [
        (statement.target.id, " ".join(inspect.cleandoc(following.value.value).split()))
        for statement, following in pairwise(body)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
        and isinstance(following.value.value, str)
    ]
