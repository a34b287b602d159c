"""A mistake in an experiment file ends as one on its command line does: a line per problem, status 2."""

from __future__ import annotations

import ast
import builtins
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from mm_config.console.output import aside
from mm_config.console.surroundings import failure
from mm_config.interrupts import give_back
from mm_config.schema.errors import UserError

_OURS = Path(__file__).parents[1]
_MAINS = ("mm_config.main", "mm_config.cli.main", "mm_config.cli.main.main", "mm_config.cli.app.app")
"""What experiments and `mm` call, by its module's name and its own."""


def install_for_an_experiment() -> None:
    """Installs the hook where the process runs an experiment file or `mm`; every other program keeps its own.

    It keeps Python's Ctrl-C as well.

    A spec may be refused while it is built, before the file has reached its `main`, so the file is read.
    """
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file and not hasattr(builtins, "__IPYTHON__") and _runs_an_experiment(Path(file)):
        _install()
    elif file:
        give_back()


def _runs_an_experiment(file: Path) -> bool:
    """Whether a program's own lines, not those of its functions, import mm_config's `main` or name it."""
    try:
        nodes = list(_outside_functions(ast.parse(file.read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return False
    imported = [pair for node in nodes for pair in _imported(node)]
    chains = [ast.unparse(node).partition(".") for node in nodes if isinstance(node, ast.Attribute)]
    used = (f"{whole}.{rest}" for first, _, rest in chains for name, whole in imported if name == first)
    return not {*used, *(whole for _, whole in imported)}.isdisjoint(_MAINS)


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    rest = [tree]
    while rest:
        yield (node := rest.pop())
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            rest += ast.iter_child_nodes(node)


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The names that an import makes, and what each stands for; a star is taken for `main` alone."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            first = alias.name.partition(".")[0]
            yield (alias.asname, alias.name) if alias.asname else (first, first)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        for alias in node.names:
            name = "main" if alias.name == "*" else alias.name
            yield alias.asname or name, f"{node.module}.{name}"


def _install() -> None:
    """Makes an uncaught `UserError` print its problems behind the file and line of the user's that raised it.

    Memory that ran out is a line as well. Every other exception is shown as before.
    """
    before = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        said = failure(error)
        if not isinstance(error, UserError) and said is None:
            before(kind, error, trace)
            return
        where = _users_line(trace)
        lines = [f"{where}{one}" for one in error.problems] if isinstance(error, UserError) else [str(said)]
        aside(*lines)
        # The interpreter takes the exit status of a hook that raises SystemExit.
        raise SystemExit(2)

    sys.excepthook = show


def _users_line(trace: TracebackType | None) -> str:
    frames = [
        frame
        for frame in traceback.extract_tb(trace)
        if Path(frame.filename).is_file() and _OURS not in Path(frame.filename).parents
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
