"""A mistake in an experiment file ends as one on its command line does: a line per problem, status 2."""

from __future__ import annotations

import ast
import builtins
import sys
import traceback
from pathlib import Path
from types import TracebackType

from mm_config.schema.errors import UserError

_OURS = Path(__file__).parents[1]


def install_for_an_experiment() -> None:
    """Installs the hook where the process runs an experiment file; every other program keeps its own.

    A spec may be refused while it is built, before the file has reached its `main`, so the file is read.
    """
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file and not hasattr(builtins, "__IPYTHON__") and _runs_an_experiment(Path(file)):
        _install()


def _runs_an_experiment(file: Path) -> bool:
    """Whether a program's text imports `main` from mm_config, or calls it there."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    return any(
        (isinstance(node, ast.ImportFrom) and node.module == "mm_config" and "main" in _names(node))
        or (isinstance(node, ast.Attribute) and ast.unparse(node) == "mm_config.main")
        for node in ast.walk(tree)
    )


def _names(node: ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names]


def _install() -> None:
    """Makes an uncaught `UserError` print its problems behind the file and line of the user's that raised it.

    Every other exception is shown as before.
    """
    before = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, UserError):
            before(kind, error, trace)
            return
        where = _users_line(trace)
        print("\n".join(f"{where}{problem}" for problem in error.problems), file=sys.stderr)
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
