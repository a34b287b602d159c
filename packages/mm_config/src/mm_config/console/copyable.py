"""Paths and commands as a person can copy them from what a run prints."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import attrs

from mm_config.options.run_options import RunOptions


def typed_path(path: Path | str) -> str:
    """A path as it is typed from the current folder where it lies below it, else absolute."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def shell_command(options: RunOptions, program: str, *words: str) -> str:
    """A command that works when it is pasted into a shell here, quoted, on the same runs folder.

    Args:
        options: How the run was started that suggests the command.
        program: `mm` or `python`; named by its path where the shell does not find this interpreter's.
        words: What follows it.
    """
    usual = attrs.fields(RunOptions).runs_dir.default
    elsewhere = [] if options.runs_dir == usual else ["--runs-dir", typed_path(options.runs_dir)]
    return shlex.join([_program(program), *words, *elsewhere])


def _program(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(beside) else typed_path(beside)
