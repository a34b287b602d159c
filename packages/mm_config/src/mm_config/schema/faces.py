"""Public faces of packages: what others may import, imported when it is first used."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from mm_config.schema.docstrings import shown_by_help


def lazy(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose `__init__` imports names for type checkers.

    Each name stands once, where readers and type checkers find it, and costs nothing until it is used:

        if TYPE_CHECKING:
            from package.module import name
        else:
            __getattr__, __dir__, __all__ = lazy(__name__)

    Args:
        package: Name of the package, whose `__init__` runs.
    """
    homes = _homes(str(sys.modules[package].__file__))

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = homes[name]
        return shown_by_help(getattr(import_module(module), original))

    names = sorted(homes)
    return get, lambda: names, names


def _homes(file: str) -> dict[str, tuple[str, str]]:
    """The module and the name there of each name that a file imports for type checkers from its package."""
    (block,) = (
        node
        for node in ast.parse(Path(file).read_bytes()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
