"""The help text of a field: the string literal that follows it in the class's source."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise
from typing import Any


@cache
def help_texts(cls: type[Any]) -> dict[str, str]:
    """The docstring of each documented field of a class and its bases, on one line each."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        texts |= _class_docs(base.__module__).get(base.__qualname__, {})
    return texts


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
