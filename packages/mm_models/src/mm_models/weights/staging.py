"""New folders that are whole or not there: written beside their place and renamed when complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mm_config.schema.errors import Problem, UserError


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
    """A folder `OUT.tmp` to write into: it gets its name where the block ends well, and is removed otherwise.

    Raises:
        UserError: The place is taken, another program writes there, or the disk refuses.
    """
    require_free(out)
    folder = out.with_name(out.name + ".tmp")
    try:
        folder.mkdir()
    except FileExistsError as error:
        message = "exists: another program writes it, or one that was interrupted; remove it then"
        raise UserError(Problem(str(folder), message)) from error
    except OSError as error:
        raise UserError(Problem(str(folder), f"can't be made: {error.strerror}")) from error
    try:
        yield folder
        if os.path.lexists(out):
            message = "was made by another program meanwhile; nothing is overwritten"
            raise UserError(Problem(str(out), message))
        folder.rename(out)
    except OSError as error:
        raise UserError(Problem(str(out), f"can't be written: {error.strerror or error}")) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
