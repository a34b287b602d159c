"""The SQL index: lookups, concurrent registration, and rebuilding from the folders."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.tiny_high import SPEC
from mm_config import exact_hash, replace, spec_hash
from mm_config.errors import UserError
from mm_config.options import RunOptions
from mm_config.runs.folder import Run, open_run
from mm_config.runs.index import open_index
from mm_config.runs.record import RunStatus

NAMED = replace(SPEC, "name", "tiny_high")


def finished(runs_dir: Path, name: str = "tiny_high", seed: int = 0) -> Run:
    run = open_run(replace(NAMED, {"name": name, "seed": seed}), RunOptions(runs_dir))
    run.finish({"checkpoint": "checkpoints/step-00000001"})
    return run


def test_runs_are_found_by_id_label_and_hash_prefix(tmp_path: Path) -> None:
    run, other = finished(tmp_path), finished(tmp_path, "other", seed=1)
    index = open_index(tmp_path)
    prefixes = [
        spec_hash(NAMED)[:8],
        spec_hash(NAMED)[:8].upper(),
        exact_hash(NAMED),
        run.path.name,
        "tiny_high",
    ]
    for text in (run.record.path, *prefixes):
        assert [record.path for record in index.find(text)] == [run.record.path], text
    assert [record.path for record in index.find("other")] == [other.record.path]
    assert index.find("%") == index.find("tiny") == ()
    assert index.folder(index.find("other")[0]) == other.path


def test_listing_is_newest_first_and_meets_every_condition(tmp_path: Path) -> None:
    first, second = finished(tmp_path), finished(tmp_path, seed=1)
    failed = open_run(replace(NAMED, "name", "other"), RunOptions(tmp_path))
    failed.fail("out of memory")
    index = open_index(tmp_path)

    def paths(**conditions: object) -> list[str]:
        return [record.path for record in index.list(**conditions)]  # pyright: ignore[reportArgumentType]

    assert paths() == [failed.record.path, second.record.path, first.record.path]
    assert paths(name="tiny_high") == [second.record.path, first.record.path]
    assert paths(status=RunStatus.FAILED) == [failed.record.path]
    assert paths(since=second.record.started_at, name="tiny_high") == [second.record.path]
    assert paths(until=second.record.started_at) == [first.record.path]
    assert paths(since="2999-01-01") == []


def test_finished_runs_of_a_spec_still_have_their_result(tmp_path: Path) -> None:
    first, second = finished(tmp_path), finished(tmp_path, "relabelled")
    open_run(NAMED, RunOptions(tmp_path)).fail("stopped")
    index = open_index(tmp_path)
    found = index.find_finished(spec_hash(NAMED))
    assert [record.path for record in found] == [second.record.path, first.record.path]
    second.result_path.unlink()
    assert [record.path for record in index.find_finished(spec_hash(NAMED))] == [first.record.path]


KILLED = """
import os, pathlib, sys
from experiments.tiny_high import SPEC
from mm_config.options import RunOptions
from mm_config.runs.folder import open_run
open_run(SPEC, RunOptions(pathlib.Path(sys.argv[1])))
os._exit(9)
"""


def test_a_run_whose_process_was_killed_is_interrupted(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 9
    index = open_index(tmp_path)
    assert [record.status for record in index.list(status=RunStatus.INTERRUPTED)] == [RunStatus.INTERRUPTED]
    assert index.list(status=RunStatus.RUNNING) == ()


def test_an_index_rebuilt_from_the_folders_equals_the_first(tmp_path: Path) -> None:
    finished(tmp_path)
    open_run(replace(NAMED, "seed", 1), RunOptions(tmp_path)).fail("a\nreason")
    running = open_run(replace(NAMED, "name", "other"), RunOptions(tmp_path))
    (tmp_path / ".cache" / "other").mkdir(parents=True)
    (tmp_path / ".cache" / "other" / "status.json").write_text("not a run")
    before = open_index(tmp_path).list()
    assert len(before) == 3

    (tmp_path / "index.sqlite").unlink()
    assert open_index(tmp_path).list() == before
    assert open_index(tmp_path).reindex() == 3
    assert open_index(tmp_path).list() == before
    running.finish({})
    assert open_index(tmp_path).list(name="other")[0].status is RunStatus.FINISHED


def test_reindexing_forgets_folders_that_are_gone(tmp_path: Path) -> None:
    kept, moved = finished(tmp_path), finished(tmp_path, "moved")
    moved.path.rename(tmp_path / "elsewhere")
    index = open_index(tmp_path)
    index.reindex()
    assert [record.path for record in index.list()] == [kept.record.path]


def test_a_moved_runs_folder_keeps_its_index(tmp_path: Path) -> None:
    run = finished(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    index = open_index(tmp_path / "there")
    (record,) = index.find_finished(spec_hash(NAMED))
    assert index.folder(record) == tmp_path / "there" / run.record.path


def test_a_runs_folder_that_does_not_exist_is_empty_and_stays_so(tmp_path: Path) -> None:
    assert open_index(tmp_path / "runs").list() == ()
    assert not (tmp_path / "runs").exists()


REGISTER = """
import pathlib, sys
from experiments.tiny_high import SPEC
from mm_config.options import RunOptions
from mm_config.runs.folder import open_run
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    open_run(SPEC, RunOptions(pathlib.Path(sys.argv[1]))).finish({})
"""


def test_processes_that_register_at_once_lose_nothing(tmp_path: Path) -> None:
    each = 5
    command = [sys.executable, "-c", REGISTER, str(tmp_path / "runs"), str(each)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    records = open_index(tmp_path / "runs").list()
    assert len(records) == len({record.path for record in records}) == 2 * each
    assert {record.status for record in records} == {RunStatus.FINISHED}


def test_any_database_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM_RUNS_URL", f"sqlite:///{tmp_path / 'shared.sqlite'}")
    here, there = finished(tmp_path / "here"), finished(tmp_path / "there")
    assert not (tmp_path / "here" / "index.sqlite").exists()
    index = open_index(tmp_path / "here")
    assert {record.uid for record in index.list()} == {here.record.uid, there.record.uid}
    index.reindex()
    assert {record.uid for record in index.list()} == {here.record.uid, there.record.uid}


@pytest.mark.parametrize("url", ["no url", "nosuchdatabase://host/runs"])
def test_a_wrong_url_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MM_RUNS_URL", url)
    with pytest.raises(UserError, match="MM_RUNS_URL: is no usable database URL") as caught:
        open_index(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_index_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").write_text("this is no database" * 100)
    with pytest.raises(UserError, match=r"index\.sqlite can't be used: file is not a database.*deleted"):
        open_index(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"status": "done"}'])
def test_a_damaged_run_folder_is_one_line_that_names_the_file(tmp_path: Path, content: str) -> None:
    status = finished(tmp_path).path / "status.json"
    (tmp_path / "index.sqlite").unlink()
    status.write_text(content)
    with pytest.raises(UserError) as caught:
        open_index(tmp_path)
    (problem,) = caught.value.problems
    assert problem.path == str(status)
    assert "\n" not in problem.message
