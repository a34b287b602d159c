"""Where mm is started with a bad environment: a line and status 2, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mm_config.console.surroundings import failure

MM = Path(sys.executable).with_name("mm")
EXPERIMENT = Path(__file__).parents[2] / "experiments" / "tiny_high.py"
HASH = f"{MM} hash {EXPERIMENT}"
DRY_RUN = f"{sys.executable} {EXPERIMENT} --dry-run"
FULL = "stdout: can't be written: No space left on device"
UTF8 = "is not UTF-8, which is what paths are stored in; rename it"
CASES = {
    "no number of ranks": (f"WORLD_SIZE=abc {DRY_RUN}", "WORLD_SIZE: expected a whole number of at least 1"),
    "no rank": (f"WORLD_SIZE=0 {DRY_RUN}", "WORLD_SIZE: expected a whole number of at least 1, got '0'"),
    "a full stdout": (f"PYTHONUNBUFFERED=1 {HASH} >/dev/full", FULL),
    "a full stdout, buffered": (f"PYTHONUNBUFFERED= {HASH} >/dev/full", FULL),
    "a closed stdout": (f"{HASH} >&-", "stdout: is closed; send it to /dev/null where nobody reads it"),
    "all closed": (f"{HASH} <&- >&- 2>&-", ""),
    "a closed stderr": (f"{MM} hashh 2>&-", ""),
    "a full stderr": (f"{MM} hashh 2>/dev/full", ""),
    "a folder that is gone": (
        f"mkdir gone; cd gone; rmdir ../gone; {DRY_RUN}",
        "the working directory: can't be used: No such file or directory; change into another one",
    ),
    "a folder of other bytes": (f"cd $BAD; {HASH}", UTF8),
    "a word of other bytes": (
        f"{DRY_RUN} --runs-dir $BAD/runs",
        "command line: '$BAD/runs' " + UTF8,
    ),
    "a home of other bytes": (f"HOME=$PWD/$BAD {HASH}", UTF8),
    "a name that is too long": (f"{MM} show {'n' * 300}", f"{'n' * 300}: File name too long"),
    "a link to itself": (f"ln -s a a; {MM} runs show a", "Symlink loop from "),
    "a folder that is a link to itself": (f"ln -s a a; {MM} runs list --runs-dir a", "symbolic links"),
    "a folder that takes no files": (
        f"cd /proc; {sys.executable} {EXPERIMENT} --spec.device cpu",
        "runs: the run folder can't be written: No such file or directory",
    ),
    "a folder for temporary files that takes none": (f"export TMPDIR=/proc; cd /proc; {MM} hashh", "hashh"),
    "little memory for torch": (
        f"ulimit -v 200000; {sys.executable} {EXPERIMENT} --runs-dir runs --spec.device cpu",
        "memory ran out (",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_a_line_and_status_2(case: str, tmp_path: Path) -> None:
    command, said = CASES[case]
    bad = os.fsdecode(b"bad\xff")
    (tmp_path / bad).mkdir()
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "BAD": bad},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == bool(said), done.stderr
    assert said.replace("$BAD", "bad\\xff") in done.stderr


def test_a_reader_that_leaves_ends_quietly(tmp_path: Path) -> None:
    command = ["bash", "-c", f"set -o pipefail; {HASH} | true"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "memory ran out: a file or a number is larger"),
        (RuntimeError("can't start new thread"), "memory ran out (can't start new thread): a file"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124]\nDefaultCPUAllocator: can't allocate memory: x"
            ),
            "memory ran out (DefaultCPUAllocator: can't allocate memory: x): a file",
        ),
        (OSError(12, "Cannot allocate memory"), "memory ran out"),
        (OSError(13, "Permission denied", "a/spec.json"), "a/spec.json: Permission denied"),
    ],
)
def test_what_libraries_and_the_system_say(error: Exception, said: str) -> None:
    assert str(failure(error)).startswith(said)


def test_other_errors_say_nothing_of_memory() -> None:
    assert failure(RuntimeError("shapes differ")) is None
    assert failure(OSError(2, "No such file", "name")) is None
