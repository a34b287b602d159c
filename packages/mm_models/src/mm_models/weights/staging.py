"""New folders that are whole or not there: written beside their place and renamed when complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mm_config.durable import staged_folder
from mm_config.schema import Problem, UserError


def require_free(out: Path) -> None:
    """Looks whether a folder can be made, before anything is read for it.

    Raises:
        UserError: Its place is taken, or its parent is no folder.
    """
    if os.path.lexists(out):
        raise UserError(Problem(str(out), "exists already; nothing is overwritten"))
    if not out.absolute().parent.is_dir():
        raise UserError(Problem(str(out), f"the folder {str(out.parent)!r} does not exist"))


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside OUT to write into: it gets its name where the block ends well, else it is removed.

    Raises:
        UserError: The place is taken, or the disk refuses.
    """
    require_free(out)
    try:
        with staged_folder(out) as folder:
            yield folder
    except FileExistsError as error:
        message = "was made by another program meanwhile; nothing is overwritten"
        raise UserError(Problem(str(error.filename), message)) from error
    except OSError as error:
        raise UserError(Problem(str(out), f"can't be written: {error.strerror or error}")) from error
