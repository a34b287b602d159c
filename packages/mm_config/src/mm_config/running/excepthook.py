"""A mistake in an experiment file ends as one on its command line does: a line per problem, status 2."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import TracebackType

from mm_config.schema.errors import UserError

_OURS = Path(__file__).parent


def install() -> None:
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
