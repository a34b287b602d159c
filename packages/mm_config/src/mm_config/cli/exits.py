"""How the command line ends: one line per mistake and status 2, never a traceback for a mistake."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from mm_config.console.output import aside, is_main_rank, print_lines
from mm_config.console.surroundings import failure, require_surroundings
from mm_config.doctor.torch_extensions import extension_failure
from mm_config.interrupts import Stopped
from mm_config.schema.errors import Failure, UserError

FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
SPEAKING_SECONDS = 3
"""How long other ranks wait after a mistake: the launcher ends all ranks when the first of them ends."""


def exit_status(body: Callable[[], int]) -> int:
    """Runs a command and returns its exit status.

    A `UserError`, an extension that keeps torch from being imported, memory that runs out and a full stdout
    print a line each on stderr, on the first rank only, so that torchrun shows them once; the other ranks
    wait until it has. Ctrl-C and a reader that closes the pipe end quietly with the status that shells use.
    """
    try:
        require_surroundings()
        status = body()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as error:
        if is_main_rank():
            with suppress(OSError):
                aside("interrupted")
        return error.status if isinstance(error, Stopped) else INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Failure as error:
        if str(error):
            print_lines([str(error)], sys.stderr)
        else:
            time.sleep(SPEAKING_SECONDS)
        return FAILED
    except Exception as error:
        lines = _lines(error)
        if not lines:
            raise
        if is_main_rank():
            with suppress(OSError):
                aside(*lines)
        else:
            time.sleep(SPEAKING_SECONDS)
        return USER_ERROR


def _lines(error: Exception) -> list[str]:
    """One line for each thing that the user can mend; none where the error is ours."""
    if isinstance(error, UserError):
        return [str(problem) for problem in error.problems]
    if extension := extension_failure(error):
        return [f"torch {extension.reason}; {extension.remedy}"]
    said = failure(error)
    return [] if said is None else [said]
