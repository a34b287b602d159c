"""`mm runs rm` and `mm runs gc`: runs go whole, and none that others were made of; leftovers go when over."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from experiments.tiny_high import SPEC
from mm_config import replace
from mm_config.cli.app import app
from mm_config.content import Input
from mm_config.doctor.checks import DoctorOptions
from mm_config.doctor.machine import leftovers as checked
from mm_config.durable.leftovers import stage_of
from mm_config.options.run_options import RunOptions
from mm_config.runs import removing
from mm_config.runs.database import UnusableIndex
from mm_config.runs.folder import Run, open_run
from mm_config.runs.index import Index, open_index
from mm_config.runs.record import RunRecord
from mm_config.schema.errors import UserError
from tests.mm_config.mm_in_process import mm


def made(runs_dir: Path, name: str, of: Run | None = None, size: int = 0) -> Run:
    details = (
        {} if of is None else {"run": of.record.path, "run_dir": str(of.path), "path": str(of.path / "x")}
    )
    inputs = {"spec.start_from": Input(digest="ab" * 32, kind="trained-by", details=details)}
    run = open_run(replace(SPEC, "name", name), RunOptions(runs_dir), inputs=inputs)
    (run.path / "weights").write_bytes(bytes(size))
    run.finish({"steps": 8})
    return run


def paths(runs_dir: Path) -> set[str]:
    listed = {record.path for record in open_index(runs_dir).list()}
    there = {
        status.parent.relative_to(runs_dir).as_posix() for status in runs_dir.glob("[!.]*/*/status.json")
    }
    assert listed == there
    return listed


def killed(work: Callable[[], object]) -> None:
    if (pid := os.fork()) == 0:
        work()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_run_is_removed_after_a_yes_and_with_its_size(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, gone = made(tmp_path, "kept"), made(tmp_path, "gone", size=3 * 2**20)
    at = ("--runs-dir", str(tmp_path))
    assert app(["runs", "rm", gone.record.path, *at]) == 2
    printed = capfd.readouterr()
    assert gone.record.path in printed.out and "3.0 MiB" in printed.out
    assert printed.err.startswith("--yes: nothing was removed") and len(printed.err.splitlines()) == 1
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for answer in ("n", ""):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        assert app(["runs", "rm", gone.record.path, *at]) == 2
    assert paths(tmp_path) == {kept.record.path, gone.record.path}
    capfd.readouterr()
    size = sum(file.stat().st_size for file in gone.path.rglob("*") if file.is_file())
    told = json.loads(mm(capfd, "runs", "rm", gone.record.path, "--yes", "--json", *at))
    assert told == {"removed": [gone.record.path], "bytes": size}
    assert paths(tmp_path) == {kept.record.path}
    assert not gone.path.parent.exists() and not (tmp_path / removing.TRASH).exists()


def test_conditions_choose_what_is_removed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    at = ("--runs-dir", str(tmp_path))
    finished = made(tmp_path, "tiny")
    for reason in ("one", "two"):
        open_run(replace(SPEC, "name", "tiny"), RunOptions(tmp_path)).fail(reason)
    assert "means 3 runs" in mm(capfd, "runs", "rm", "tiny", "--yes", *at, status=2)
    assert "expected RUN, or conditions" in mm(capfd, "runs", "rm", "--yes", *at, status=2)
    assert "removed 0 runs, 0 B" in mm(capfd, "runs", "rm", "--until", "2001-01-01", *at)
    assert "has this id" in mm(capfd, "runs", "rm", "none", "--yes", *at, status=2)
    mm(capfd, "runs", "rm", "--status", "failed", "--yes", *at)
    assert paths(tmp_path) == {finished.record.path}
    for wrong in (["list", "--yes"], ["show", "tiny", "--force"], ["gc", "--yes"], ["gc", "--name", "tiny"]):
        assert "is no option of" in mm(capfd, "runs", *wrong, *at, status=2)


def test_what_another_run_was_made_of_stays_without_force(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    training = made(tmp_path, "training")
    tuned = made(tmp_path, "tuned", training)
    reproduced = made(tmp_path / "reproductions", "again", tuned)
    at = ("--yes", "--runs-dir", str(tmp_path))
    (line,) = mm(capfd, "runs", "rm", training.record.path, *at, status=2).splitlines()
    assert line.startswith(f"{training.record.path}: {tuned.record.path} was made of it (spec.start_from)")
    (line,) = mm(capfd, "runs", "rm", tuned.record.path, *at, status=2).splitlines()
    assert f"reproductions/{reproduced.record.path} was made of it" in line
    (tuned.path / "inputs.json").write_text("{")
    (line,) = mm(capfd, "runs", "rm", training.record.path, *at, status=2).splitlines()
    assert line.startswith(f"{tuned.record.path}: what it was made of can't be read")
    shutil.rmtree(tmp_path / "reproductions")
    mm(capfd, "runs", "rm", training.record.path, tuned.record.path, *at)
    assert paths(tmp_path) == set()


def test_a_training_whose_user_recorded_nothing_stays_by_the_spec_that_names_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from experiments.tiny import SPEC as GENERATION
    from mm_config.specs.weights import TrainedBy

    training = open_run(SPEC, RunOptions(tmp_path))
    training.finish({})
    made_of_it = replace(GENERATION, "high_noise", TrainedBy(spec=SPEC))
    generation = open_run(made_of_it, RunOptions(tmp_path))
    generation.finish({})
    at = ("--yes", "--runs-dir", str(tmp_path))
    told = mm(capfd, "runs", "rm", training.record.path, *at, status=2)
    assert f"{generation.record.path} was made of it (spec.high_noise)" in told
    mm(capfd, "runs", "rm", training.record.path, "--force", *at)
    assert paths(tmp_path) == {generation.record.path}


def test_a_running_run_stays_whatever_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = open_run(replace(SPEC, "name", "tiny"), RunOptions(tmp_path))
    told = mm(capfd, "runs", "rm", run.record.path, "--yes", "--force", "--runs-dir", str(tmp_path), status=2)
    assert told == f"{run.record.path}: is running; stop it first\n"
    assert run.path.is_dir()


def test_a_full_disk_keeps_no_run_from_being_removed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def forgets(index: Index, record: RunRecord) -> None:
        if (tmp_path / record.path).exists():
            raise UnusableIndex("database or disk is full")
        forget(index, record)

    first, held = made(tmp_path, "tiny"), open_run(replace(SPEC, "name", "held"), RunOptions(tmp_path))
    index, forget = open_index(tmp_path), removing.forget
    monkeypatch.setattr(removing.lock, "acquire", full)
    with pytest.raises(UserError, match="No space left"):
        removing.remove_run(index, held.record)
    monkeypatch.setattr(Path, "mkdir", full)
    monkeypatch.setattr(removing, "forget", forgets)
    removing.remove_run(index, first.record)
    monkeypatch.undo()
    assert paths(tmp_path) == {held.record.path}
    assert mm(capfd, "runs", "gc", "--runs-dir", str(tmp_path)).startswith("removed 0 leftovers")


def test_only_the_folder_of_the_run_itself_is_removed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runs_dir, at = tmp_path / "runs", ("--yes", "--runs-dir", str(tmp_path / "runs"))
    run = made(runs_dir, "tiny")
    status = (run.path / "status.json").read_text()
    (run.path / "status.json").write_text(status.replace(run.record.uid, "0" * 32))
    assert "holds another run" in mm_err(capfd, "runs", "rm", run.record.path, "--force", *at)
    (run.path / "status.json").write_text("{")
    assert "status.json: is no JSON" in mm_err(capfd, "runs", "rm", run.record.path, *at)
    elsewhere = attrs.evolve(run.record, path="../precious", uid="1" * 32)
    (tmp_path / "precious").mkdir()
    index = open_index(runs_dir)
    with pytest.raises(UserError, match=r"is no folder of .*runs: `\.\.` is not allowed"):
        removing.remove_run(index, elsewhere, unread=True)
    assert (tmp_path / "precious").is_dir()
    (run.path / "samples").symlink_to(tmp_path / "precious")
    (tmp_path / "precious" / "file").touch()
    mm(capfd, "runs", "rm", run.record.path, "--force", *at)
    assert not run.path.exists() and (tmp_path / "precious" / "file").exists()


def mm_err(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that lists what it would remove says on stderr."""
    assert app(words) == 2
    return capfd.readouterr().err


@pytest.mark.parametrize("place", ["rename", "rmtree", "forget"])
def test_a_kill_while_removing_leaves_a_whole_run_or_none(
    tmp_path: Path, place: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "other")
    run = made(tmp_path, "tiny")
    at = ("--runs-dir", str(tmp_path))

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def remove() -> None:
        monkeypatch.setattr({"rename": Path, "rmtree": shutil, "forget": removing}[place], place, die)
        app(["runs", "rm", run.record.path, "--yes", *at])

    killed(remove)
    capfd.readouterr()
    open_index(tmp_path).reindex()
    if place == "rmtree":
        assert run.record.path not in paths(tmp_path)
        told = json.loads(mm(capfd, "runs", "gc", "--json", *at))
        assert len(told["removed"]) == 1 and not (tmp_path / removing.TRASH).exists()
    else:
        assert run.record.path in paths(tmp_path)
        mm(capfd, "runs", "rm", run.record.path, "--yes", *at)
    assert not list((tmp_path / "tiny").glob("*")) and not (tmp_path / removing.TRASH).exists()


def test_leftovers_are_removed_when_over_else_listed_with_their_size(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = made(tmp_path, "tiny")
    held = open_run(replace(SPEC, "name", "held"), RunOptions(tmp_path))
    (tmp_path / ".features").mkdir()
    for folder in (run.path, tmp_path / ".features", held.path):
        killed(lambda folder=folder: stage_of(folder / "x").write_bytes(bytes(2**20)))
    checkpoints = [one.path / "checkpoints" / "step-00000008.tmp" for one in (run, held)]
    for stage in checkpoints:
        stage.mkdir(parents=True)
    notes = run.path / "notes.tmp"
    notes.write_text("a person's")
    mine = stage_of(run.path / "mine")
    mine.touch()
    machine = re.fullmatch(r"\.mine\.(\w+)-.*", mine.name)[1]  # pyright: ignore
    other = mine.with_name(f".x.{'0' * 7}{(int(machine, 16) % 9) + 1}-1-1-0123.tmp")
    other.write_bytes(bytes(3 * 2**20))
    found = {check.detail: check.remedy for check in checked(DoctorOptions(runs_dir=tmp_path))}
    assert found["4 stages of killed processes, 3.0 MiB"] == "mm runs gc"
    assert any(str(other) in detail and "3.0 MiB" in detail for detail in found)
    assert app(["runs", "gc", "--runs-dir", str(tmp_path)]) == 0
    printed = capfd.readouterr()
    assert printed.out == f"removed 4 leftovers, 3.0 MiB, of {tmp_path}\n"
    lines = printed.err.splitlines()
    assert [line.partition(" stay; ")[0] for line in lines] == [f"{other}: 3.0 MiB", f"{notes}: 10 B"]
    assert mine.exists() and other.exists() and checkpoints[1].exists() and not checkpoints[0].exists()
    assert paths(tmp_path) == {run.record.path, held.record.path}
