"""Commands of mm that run with faults: the library, the process that forks, and folders to run them in."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

SOURCE = Path(__file__).with_name("faults.c")
REPOSITORY = Path(__file__).parents[2]
SECONDS = 60.0
"""Longer than any of these commands takes on a busy machine."""
SCRIPT = """from mm_config import main
from tests.faults.specs import {} as SPEC

if __name__ == "__main__":
    main(SPEC)
"""
MM = "from mm_config.cli.app import app\n\nraise SystemExit(app())\n"


class Mode(IntEnum):
    """What happens at a call, as faults.c has it."""

    NOTHING = 0
    KILL = 1
    HALF_WRITE = 2
    ONE_ERROR = 3
    ALL_ERRORS = 4
    HANG = 5


@attrs.frozen
class Fault:
    """A kill, an error or a hang at the `at`-th call, counted from 1, that changes files."""

    mode: Mode = Mode.NOTHING
    at: int = 0
    error: int = 0
    """The errno of the call."""
    rank: int = 0
    """The process whose call it is."""


@attrs.frozen
class Ended:
    """How a command ended."""

    status: int
    """Its exit status; the negative number of a signal that killed it. Of several ranks, that of the one with
    the fault, or another's where that is none of those that are promised."""
    late: bool
    """Whether it had to be killed because it took too long."""
    out: str
    err: str
    calls: tuple[str, ...]
    """The calls that changed files, as `name path`, the path below the folder, of the rank with the fault."""


class Commands:
    """Runs commands in a folder, each in a fork of one process in which everything is imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir(parents=True)
        for name in ("high", "low", "video"):
            (self.folder / f"{name}.py").write_text(SCRIPT.format(name.upper()))
        (self.folder / "mm.py").write_text(MM)
        library = folder / "faults.so"
        assert not {" ", ":"} & {*str(library)}, "they part the names of libraries that are loaded first"
        compiler = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(compiler, check=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forked"],
            env={**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._ask(None) == "ready\n"
        self.keep("empty")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, argv: str, fault: Fault = Fault(), ranks: int = 1) -> Ended:
        """Runs a command line, such as `high.py --resume latest` or `mm.py runs list`, by one or more ranks.

        What is imported where nothing fails is there for all that follow.
        """
        request = {
            "folder": str(self.folder),
            "argv": [found for word in argv.split() for found in self._named(word)],
            "fault": [fault.mode, fault.at, fault.error],
            "faulty": fault.rank,
            "hangs": fault.mode is Mode.HANG,
            "ranks": ranks,
            "seconds": SECONDS,
        }
        if fault.mode is Mode.NOTHING:
            request["modules"] = f"{self.folder}.modules"
        answer = json.loads(self._ask(json.dumps(request)))
        out, err, calls = (
            [Path(f"{self.folder}.{name}.{rank}").read_text("utf-8", "replace") for rank in range(ranks)]
            for name in ("stdout", "stderr", "calls")
        )
        called = tuple(calls[fault.rank].splitlines())
        return Ended(answer["status"], answer["late"], "".join(out), "".join(err), called)

    def _named(self, word: str) -> list[str]:
        """The files that a pattern of the shell stands for; another word is itself."""
        return sorted(glob.glob(word, root_dir=self.folder)) if "*" in word else [word]

    def keep(self, name: str) -> None:
        """Keeps a copy of the folder as it is."""
        _copy(self.folder, self.folder.with_name(name))

    def restore(self, name: str) -> None:
        """Makes the folder what it was when it was kept."""
        shutil.rmtree(self.folder)
        _copy(self.folder.with_name(name), self.folder)

    def forget(self, name: str) -> None:
        """Removes a copy."""
        shutil.rmtree(self.folder.with_name(name))

    def _ask(self, request: str | None) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        if request is not None:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        return self._process.stdout.readline()


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
