"""An index whose file is damaged is made anew, and one that can't be used is done without: a line says so."""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.tiny_high import SPEC
from mm_config import replace, spec_hash
from mm_config.console import output
from mm_config.options.run_options import RunOptions
from mm_config.runs import database
from mm_config.runs.conditions import parse_condition
from mm_config.runs.folder import open_run
from mm_config.runs.index import open_index, unfilled_index
from mm_config.schema.errors import UserError
from tests.mm_config.forks import alone, at_once

pytestmark = pytest.mark.usefixtures("quick_runs")
HASH = spec_hash(SPEC)


def filled(runs_dir: Path, runs: int = 3) -> Path:
    """The index of some finished runs."""
    for number in range(runs):
        open_run(replace(SPEC, "name", f"run{number}"), RunOptions(runs_dir)).finish({})
    return runs_dir / "index.sqlite"


def seen(runs_dir: Path) -> tuple[object, ...]:
    """What an index says in several ways."""
    index = open_index(runs_dir)
    return (
        index.list(),
        index.find_finished(HASH),
        index.list(where=[parse_condition("seed=0")]),
        index.list(matching=HASH[:9]),
    )


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size * 2 // 3 + 11)


def another_schema(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE runs_v5 DROP COLUMN host")


def no_row_of_ours(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE runs_v5 SET status = 'done', fields = '{'")


def zeros_in_a_text(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE runs_v5 SET host = ?", ("v\0\0",))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "garbage": lambda file: file.write_text("this is no database" * 100),
    "cut": cut,
    "NULs": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "NULs after the first page": lambda file: file.write_bytes(file.read_bytes()[:4096] + bytes(60000)),
    "another schema": another_schema,
    "no row of ours": no_row_of_ours,
    "zeros in a text": zeros_in_a_text,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_made_anew_and_said_in_a_line(
    tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = filled(tmp_path)
    before = seen(tmp_path)
    DAMAGES[damage](file)
    assert seen(tmp_path) == before
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"run index: sqlite:///{file} can't be used: ")
    assert line.endswith("; it is made anew from the run folders")
    assert seen(tmp_path) == before
    assert capfd.readouterr().err == ""


def test_a_damaged_index_does_not_keep_a_run_from_starting_or_ending(tmp_path: Path) -> None:
    file = filled(tmp_path, 1)
    file.write_text("garbage")
    run = open_run(replace(SPEC, "name", "other"), RunOptions(tmp_path))
    file.write_text("garbage again")
    run.finish({})
    assert [record.status.value for record in open_index(tmp_path).list()] == ["finished"] * 2


def test_reindexing_a_damaged_index_mends_it(tmp_path: Path) -> None:
    filled(tmp_path).write_text("garbage")
    read: list[None] = []
    assert unfilled_index(tmp_path).reindex(lambda: read.append(None)) == len(read) == 3
    assert len(open_index(tmp_path).list()) == 3


def test_an_index_is_right_whichever_of_its_pages_is_lost(tmp_path: Path) -> None:
    file = filled(tmp_path)
    before, whole = seen(tmp_path), file.read_bytes()
    page = int.from_bytes(whole[16:18])
    for start in range(0, len(whole), page):
        file.write_bytes(whole[:start] + bytes(page) + whole[start + page :])
        assert alone(lambda: seen(tmp_path) == before) == "True", f"page {start // page}"


def test_many_that_find_a_damaged_index_at_once_lose_nothing(tmp_path: Path) -> None:
    filled(tmp_path).write_text("garbage")
    started = [
        lambda number=number: open_run(replace(SPEC, "seed", number), RunOptions(tmp_path)).finish({}).name
        for number in range(4)
    ]
    listed = [lambda: len(open_index(tmp_path).list()) >= 3] * 4
    assert at_once([*started, *listed]) == ["result.json"] * 4 + ["True"] * 4
    assert [record.status.value for record in open_index(tmp_path).list()] == ["finished"] * 7


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that everybody may read; pytest shuts those of all tests whenever it starts."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not write")
def test_a_folder_that_only_can_be_read_is_listed_with_what_its_index_lacks(open_path: Path) -> None:
    def listed() -> str:
        os.setuid(65534)
        return ", ".join(record.name for record in open_index(open_path).list())

    file = filled(open_path)
    assert alone(listed) == "run2, run1, run0"
    file.rename(open_path / "older")
    filled(open_path, 1)
    (open_path / "older").replace(file)
    assert alone(listed) == "run0, run2, run1, run0"
    file.unlink()
    assert alone(listed) == "run0, run2, run1, run0"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not look")
def test_a_run_folder_that_nobody_may_look_into_is_named(open_path: Path) -> None:
    def said() -> str:
        os.setuid(65534)
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            names = [record.name for record in open_index(open_path).list()]
        return f"{names} {errors.getvalue()}"

    filled(open_path).unlink()
    (shut,) = (open_path / "run1").iterdir()
    shut.chmod(0)
    assert alone(said).startswith("['run2', 'run0']")
    assert f"{shut.relative_to(open_path)}" in alone(said) and "Permission denied" in alone(said)


def test_an_index_that_another_has_locked_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = filled(tmp_path)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert len(open_index(tmp_path).list()) == 3
        (line,) = capfd.readouterr().err.splitlines()
        assert line.endswith("can't be used: database is locked; the run folders are read instead")
        run = open_run(SPEC, RunOptions(tmp_path))
        run.finish({})
        other.execute("ROLLBACK")
    capfd.readouterr()
    assert len(open_index(tmp_path).list()) == 4
    assert capfd.readouterr().err == ""


def test_a_folder_in_the_place_of_the_index_is_done_without(tmp_path: Path) -> None:
    filled(tmp_path).unlink()
    (tmp_path / "index.sqlite").mkdir()
    assert len(open_index(tmp_path).list()) == 3


def test_a_pipe_in_the_place_of_the_index_is_not_waited_for(tmp_path: Path) -> None:
    filled(tmp_path).unlink()
    os.mkfifo(tmp_path / "index.sqlite")
    assert alone(lambda: len(open_index(tmp_path).list())) == "3"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not read")
def test_a_folder_that_nobody_else_may_read_is_named_and_stops_nothing(open_path: Path) -> None:
    def listed(runs_dir: Path) -> str:
        os.setuid(65534)
        noted = list[str]()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(output, "print_lines", lambda lines, *_: noted.extend(lines))
            return f"{len(open_index(runs_dir).list())} runs; {noted[-1:]}"

    filled(open_path)
    (open_path / "lost+found").mkdir(mode=0)
    expected = f"passed over: {open_path}/lost+found: can't be read: Permission denied"
    assert alone(lambda: listed(open_path)) == f"3 runs; {[expected]}"
    (open_path / "shut").mkdir(mode=0)
    assert alone(lambda: listed(open_path / "shut")) == f"{open_path}/shut: can't be read: Permission denied"


def test_a_shared_database_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared.sqlite"
    shared.write_text("somebody's")
    monkeypatch.setenv("MM_RUNS_URL", f"sqlite:///{shared}")
    with pytest.raises(UserError, match=r"can't be used: file is not a database; MM_RUNS_URL names this"):
        open_index(tmp_path)
    assert shared.read_text() == "somebody's"
