"""How the command line ends: one line per mistake and status 2, never a traceback for a mistake."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from mm_config.console.output import aside, is_main_rank
from mm_config.doctor.torch_extensions import extension_failure
from mm_config.schema.errors import UserError

USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
_NO_MEMORY = "DefaultCPUAllocator"
"""What torch's errors name when the CPU's memory ends."""
SPEAKING_SECONDS = 3
"""How long other ranks wait after a mistake: the launcher ends all ranks when the first of them ends."""


def exit_status(body: Callable[[], int]) -> int:
    """Runs a command and returns its exit status.

    A `UserError`, memory that ran out, or an extension that keeps torch from being imported, prints its
    problems on stderr, on the first rank only, so that torchrun shows them once; the other ranks wait until
    it has. Ctrl-C and a reader that closes the pipe end quietly with the status that shells use.
    """
    try:
        status = body()
        sys.stdout.flush()
        return status
    except (UserError, RuntimeError, MemoryError) as error:
        lines = _lines(error)
        if not lines:
            raise
        if is_main_rank():
            aside(*lines)
        else:
            time.sleep(SPEAKING_SECONDS)
        return USER_ERROR
    except KeyboardInterrupt:
        if is_main_rank():
            aside("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _lines(error: UserError | RuntimeError | MemoryError) -> list[str]:
    """One line for each thing that the user can mend; none where the error is ours."""
    if isinstance(error, UserError):
        return [str(problem) for problem in error.problems]
    if isinstance(error, MemoryError) or _NO_MEMORY in str(error):
        return ["memory ran out: a file or a number is larger than this machine, or its limit, can hold"]
    failure = extension_failure(error)
    return [] if failure is None else [f"torch {failure.reason}; {failure.remedy}"]
