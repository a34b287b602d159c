"""The pages on the command line and on many devices show what their commands print, which are run.

A block marked ```console holds commands (`$ ...`), each followed by its output. Such a block is compared
exactly. One marked ```console long runs in the long tests, where numbers and digests, which differ from
machine to machine, count as equal; of one marked ```console sample only the commands are run.
`pytest tests/mm_config/test_docs.py --update` writes the pages anew. What follows <!-- file NAME --> is that
file.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import attrs
import pytest

from mm_config.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "docs" / "command_line.md", ROOT / "docs" / "many_devices.md")
FILE = re.compile(r"^<!-- file (\S+) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```console(?: (?P<kind>long|sample))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"[|<>&;$*`]")
VARYING = re.compile(r"\b[0-9a-f]{8,}\b|\d+(,\d{3})*(\.\d+)?(e-?\d+)?| +")


@attrs.frozen
class Block:
    """A block of a page."""

    page: Path
    """Where it stands."""
    kind: str
    """Empty, `long` or `sample`."""
    start: int
    end: int
    """Where its text lies in the page."""
    text: str

    def commands(self) -> Iterator[str]:
        """Its commands, without the prompt."""
        return (line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ "))


def blocks() -> list[Block]:
    return [
        Block(page, found["kind"] or "", *found.span("text"), found["text"])
        for page in PAGES
        for found in BLOCK.finditer(page.read_text("utf-8"))
    ]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the experiments and no runs, for a user without files of their own."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "experiments").symlink_to(ROOT / "experiments")
    for page in PAGES:
        for name, text in FILE.findall(page.read_text("utf-8")):
            (folder / name).write_text(text)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for variable in ("MM_RUNS_URL", "COLUMNS", "TERM", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(folder)
    return folder


Runner = Callable[[str], tuple[int, str]]


def in_a_shell(command: str) -> tuple[int, str]:
    """Exit status and output of a command."""
    done = subprocess.run(
        ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def in_this_process(command: str) -> tuple[int, str]:
    """As `in_a_shell`, without a new process where the command is a verb alone."""
    if not command.startswith("mm ") or SHELL.search(command):
        return in_a_shell(command)
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        status = app(shlex.split(command)[1:])
    return status, printed.getvalue()


def replayed(block: Block, project: Path, run: Runner) -> str:
    """The text that a block has when its commands are run."""
    lines: list[str] = []
    status = 0
    for command in block.commands():
        if command == "echo $?":
            printed = f"{status}\n"
        else:
            status, printed = run(command)
            assert "Traceback" not in printed, f"$ {command}\n{printed}"
        lines.append(f"$ {command}\n{printed}")
    text = "".join(lines)
    for place, shown in ((project, "~/project"), (Path.home(), "~"), (Path(sys.executable).parent, "bin")):
        text = text.replace(str(place), shown)
    return text


def put_into_the_pages(texts: list[tuple[Block, str]]) -> None:
    for block, text in reversed(texts):
        page = block.page.read_text("utf-8")
        block.page.write_text(page[: block.start] + text + page[block.end :], "utf-8")


def constant(text: str) -> str:
    """A text without what is another one in each run."""
    return VARYING.sub("#", text)


def outdated(texts: list[tuple[Block, str]]) -> list[tuple[Block, str]]:
    """The blocks whose commands print something else now; a sample shows another machine and stays."""
    return [
        (block, text)
        for block, text in texts
        if block.kind != "sample" and constant(text) != constant(block.text)
    ]


def test_the_pages_show_what_verbs_and_help_print(project: Path, update: bool) -> None:
    quick = [block for block in blocks() if not block.kind]
    assert len(quick) > 5
    texts = [(block, replayed(block, project, in_this_process)) for block in quick]
    if update:
        put_into_the_pages(texts)
    for block, text in texts:
        assert update or text == block.text


@pytest.mark.slow
def test_the_pages_show_what_runs_print(project: Path, update: bool) -> None:
    texts = [(block, replayed(block, project, in_a_shell)) for block in blocks()]
    if update:
        put_into_the_pages(outdated(texts))
    for block, text in outdated(texts):
        if block.kind == "long":
            assert update or constant(text) == constant(block.text)


def test_a_sample_stays_as_it_is() -> None:
    (first, *_) = [block for block in blocks() if block.kind == "sample"]
    long = attrs.evolve(first, kind="long")
    assert outdated([(first, "other\n"), (long, "other\n")]) == [(long, "other\n")]


def test_every_registered_verb_is_on_a_page() -> None:
    from mm_config.cli.verb import verbs

    shown = {command.split()[1] for block in blocks() for command in block.commands() if command[:3] == "mm "}
    assert set(verbs()) <= shown
