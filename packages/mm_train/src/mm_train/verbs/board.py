"""`mm board`: the runs of a folder in a browser."""

from __future__ import annotations

from pathlib import Path

from mm_config.cli import RUNS_DIR, CommandLine, Option, Usage, Verb, runs_dir_of, whole_number
from mm_config.console import say
from mm_config.pages import LOOPBACK, check_web, serve
from mm_config.schema import Problem, UserError


def _port(text: str) -> int:
    port = whole_number(text, 0)
    if port > 65_535:
        raise UserError(f"expected a port, 0 to 65535, got {text}")
    return port


HOST = Option(
    "--host", f"Interface to listen on (default: {LOOPBACK}, which this machine alone reaches).", "HOST"
)
PORT = Option("--port", "Port to listen on; 0 takes a free one (default: 8070).", "PORT", read=_port)
NAME = Option(
    "--name",
    "One more name that requests may use for this machine. May be repeated.",
    "NAME",
    repeatable=True,
)
USAGE = Usage(
    "mm board [RUNS_DIR] [--host HOST] [--port PORT] [--name NAME ...]",
    "Show the runs in a browser: a table to search, live curves, runs beside each other, what made what.",
    "It finds runs by conditions on fields, as `mm runs --where` does, follows the curves of those that run, "
    "lays several over each other with what differs between their specs and their videos of the same prompt "
    "and seed, and tells which training made the weights of a video. It reads: nothing in a run folder is "
    "changed. RUNS_DIR is the folder with the runs (default: --runs-dir).\n\n"
    "It listens on this machine alone. Whoever reaches another --host sees all runs: there are no passwords.",
    (HOST, PORT, NAME, RUNS_DIR),
    (
        ("mm board", "the runs of ./runs at http://127.0.0.1:8070"),
        ("mm board /mnt/runs --port 0", "those of another folder, on a free port"),
    ),
    words=("[RUNS_DIR]",),
    takes="files",
)


def board(line: CommandLine) -> int:
    """Serves until it is stopped."""
    check_web("mm-train[board]")
    if line.words and line.has(RUNS_DIR):
        raise UserError(Problem("--runs-dir", "the folder is named twice"))
    runs_dir = Path(line.words[0]) if line.words else runs_dir_of(line)
    if not runs_dir.is_dir():
        raise UserError(Problem(str(runs_dir), "is no folder; the runs folder is meant, such as ./runs"))
    from mm_train.board.app import board_app

    host, port = line.value(HOST) or LOOPBACK, line.value(PORT)
    app = board_app(runs_dir, line.values(NAME))
    serve(app, host, 8070 if port is None else port, lambda url: say(f"{url}  Ctrl-C ends it"))
    return 0


VERB = Verb(USAGE, board)
