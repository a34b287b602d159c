"""Commands that are printed can be pasted into a shell."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mm_config.console.copyable import shell_command, typed_path
from mm_config.options.run_options import RunOptions


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder whose name a shell would split, from where this interpreter is not found."""
    folder = tmp_path / "my project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    return folder


def test_words_arrive_whole_and_the_runs_folder_comes_along(place: Path):
    line = shell_command(
        RunOptions(runs_dir=place / "my runs"), "python", "-c", "import sys; print(sys.argv[1:])"
    )
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['--runs-dir', 'my runs']"


def test_the_usual_runs_folder_is_not_mentioned(place: Path):
    words = shlex.split(shell_command(RunOptions(), "mm", "show", "it's red"))
    assert words == [str(Path(sys.executable).with_name("mm")), "show", "it's red"]


def test_a_program_that_the_shell_finds_goes_by_its_name(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert shell_command(RunOptions(), "python", "x.py") == "python x.py"


def test_paths_are_shown_from_the_current_folder(place: Path):
    assert typed_path(place / "runs" / "x") == "runs/x"
    assert typed_path("runs") == "runs"
    assert typed_path(place.parent) == str(place.parent)
