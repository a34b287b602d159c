"""What Ctrl-C does to a process that is mm's own: `mm`, or an experiment file that is run.

Imported before anything else, so that little of a process's life is left to Python's own way, which is an
exception: `except` in libraries, C code that imports modules and callbacks swallow it, or it is shown as a
traceback. Here the process ends where it stands. What is half done is seen to be so, as after `kill -9`.
"""

import os
import sys

TYPE_CHECKING = False  # typing takes 9 ms.
if TYPE_CHECKING:
    from signal import SIGINT, default_int_handler, getsignal, signal
else:
    # What signal itself is made of, without its enums, which take 3 ms.
    from _signal import SIGINT, default_int_handler, getsignal, signal


class Stopped(KeyboardInterrupt):
    """A signal asked to stop, and what was under way is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.status = 128 + number
        """The exit status that shells know for the signal."""


_LAST_WORDS = [b"interrupted\n"]
"""Said once, by the thread that comes first."""


def take_over() -> None:
    """Lets Ctrl-C end the process at once where it may be mm's own; where it is ignored, it stays so."""
    program = getattr(sys.modules["__main__"], "__file__", None) or sys.argv[:1] == ["-m"]
    if program:
        _replace(default_int_handler, leave)


def give_back() -> None:
    """Lets Ctrl-C be Python's again, for a program that only uses what is here."""
    _replace(leave, default_int_handler)


def leave(number: int, frame: object = None) -> None:
    """Ends the process at once with the status that shells know for a signal."""
    if os.environ.get("RANK", "0") == "0":
        _write(1, b"\x1b[?25h" if os.isatty(1) else b"")  # A live bar hides the cursor.
        _write(2, _LAST_WORDS.pop() if _LAST_WORDS else b"")
    os._exit(128 + number)


def _replace(old: object, new: object) -> None:
    try:
        if getsignal(SIGINT) is old:
            signal(SIGINT, new)  # type: ignore[arg-type]
    except ValueError:
        pass  # Python allows no handlers outside of the main thread.


def _write(file: int, text: bytes) -> None:
    try:
        os.write(file, text)
    except OSError:
        return  # Nobody reads it any more.
