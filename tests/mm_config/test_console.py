"""Progress, notes and tables: on a real terminal, in a pipe, and on ranks that stay silent."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

WORK = """
from mm_config.console.output import progress, say, table
with progress("train tiny_high", total=25, every=10) as bar:
    for step in range(25):
        bar.advance(1, loss=0.5 / (step + 1), rate="210 samples/s")
        if step == 12:
            say("checkpoint [step-00000013] written")
table("Results", [("run", "runs/tiny_high/20261122-7f3a91c2d0e4-1"), ("score [%]", 97.5)])
table("Scores", [("colour", 0.95), ("shape", 0.7)], header=("what", "share"))
"""


def in_pipe(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    ).stdout


def on_terminal(code: str) -> str:
    """Runs code with a pseudo-terminal as stdout and returns everything written to it."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, env=environment)
    os.close(theirs)
    written = b""
    while chunk := _read(ours):
        written += chunk
    os.close(ours)
    assert process.wait() == 0
    return written.decode()


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 65536)
    except OSError:  # Linux reports the other end's closing this way.
        return b""


def test_a_pipe_gets_a_line_every_few_steps_and_at_the_last() -> None:
    lines = in_pipe(WORK).splitlines()
    timeless = [re.sub(r"\d+:\d\d:\d\d", "TIME", line) for line in lines[:4]]
    assert timeless == [
        "train tiny_high  step 10/25  loss 0.05  210 samples/s  TIME left",
        "checkpoint [step-00000013] written",
        "train tiny_high  step 20/25  loss 0.025  210 samples/s  TIME left",
        "train tiny_high  step 25/25  loss 0.02  210 samples/s  TIME in all",
    ]


def test_a_pipe_gets_tables_as_aligned_text() -> None:
    assert in_pipe(WORK).splitlines()[4:] == [
        "Results",
        "  run        runs/tiny_high/20261122-7f3a91c2d0e4-1",
        "  score [%]  97.5",
        "Scores",
        "  what    share",
        "  colour  0.95",
        "  shape   0.7",
    ]


def test_a_terminal_gets_a_bar_that_redraws_itself_and_a_boxed_table() -> None:
    written = on_terminal(WORK)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert "\x1b[2K" in written
    assert re.search(r"train tiny_high ━+ step 25/25 loss 0\.02  210 samples/s 0:00:\d\d 0:00:00 left", plain)
    assert "checkpoint [step-00000013] written" in plain
    assert re.search(r"score \[%\]\s+│ 97\.5", plain)
    assert re.search(r"what\s+┃ share", plain)


def test_a_terminal_that_cannot_redraw_gets_lines(tmp_path: Path) -> None:
    code = f"import os; os.environ['TERM'] = 'dumb'\n{WORK}"
    written = on_terminal(code)
    assert "\x1b" not in written
    assert "train tiny_high  step 25/25" in written


def test_other_ranks_are_silent() -> None:
    assert in_pipe(WORK, RANK="1") == ""
    assert in_pipe(WORK, RANK="0") != ""


def test_resumed_work_counts_on() -> None:
    code = """
from mm_config.console.output import progress
with progress("train", total=30, every=10, completed=18) as bar:
    for _ in range(12):
        bar.advance()
"""
    assert [line.split("  ")[1] for line in in_pipe(code).splitlines()] == ["step 20/30", "step 30/30"]


def test_importing_the_console_imports_no_heavy_library() -> None:
    code = (
        "import sys, mm_config.console.output, mm_config.options.run_options; "
        "print({'rich', 'sqlalchemy'} & set(sys.modules))"
    )
    assert in_pipe(code) == "set()\n"
