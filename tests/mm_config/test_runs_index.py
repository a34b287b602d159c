"""The SQL index: lookups, equivalent hashes, and rebuilding from the folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from experiments.tiny_high import SPEC
from mm_config import exact_hash, replace, spec_hash
from mm_config.options.run_options import RunOptions
from mm_config.runs.conditions import parse_condition
from mm_config.runs.folder import Run, open_run
from mm_config.runs.index import open_index, unfilled_index
from mm_config.runs.record import RunStatus
from mm_config.schema.decorator import spec
from mm_config.schema.errors import UserError
from mm_config.schema.fields import LOCATION, field
from mm_config.schema.root import RootSpec
from mm_config.stored.files import to_payload

NAMED = replace(SPEC, "name", "tiny_high")


each_database = pytest.mark.usefixtures("each_database")


def finished(runs_dir: Path, name: str = "tiny_high", seed: int = 0) -> Run:
    run = open_run(replace(NAMED, {"name": name, "seed": seed}), RunOptions(runs_dir))
    run.finish({"checkpoint": "checkpoints/step-00000001"})
    return run


def forget(runs_dir: Path) -> None:
    """Removes the index, as a person who deletes its file or its tables."""
    index = open_index(runs_dir)
    index.runs.drop(index.engine)


@each_database
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
        assert [record.path for record in index.list(matching=text)] == [run.record.path], text
    assert [record.path for record in index.list(matching="other")] == [other.record.path]
    assert index.list(matching="%") == index.list(matching="tiny") == ()
    assert index.folder(index.list(matching="other")[0]) == other.path


@each_database
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


@each_database
def test_finished_runs_of_a_spec_still_have_their_result(tmp_path: Path) -> None:
    first, second = finished(tmp_path), finished(tmp_path, "relabelled")
    open_run(NAMED, RunOptions(tmp_path)).fail("stopped")
    index = open_index(tmp_path)
    found = index.find_finished(spec_hash(NAMED))
    assert [record.path for record in found] == [second.record.path, first.record.path]
    second.result_path.unlink()
    assert [record.path for record in index.find_finished(spec_hash(NAMED))] == [first.record.path]


@each_database
def test_an_index_rebuilt_from_the_folders_equals_the_first(tmp_path: Path) -> None:
    finished(tmp_path)
    open_run(replace(NAMED, "seed", 1), RunOptions(tmp_path)).fail("a\nreason")
    running = open_run(replace(NAMED, "name", "other"), RunOptions(tmp_path))
    (tmp_path / ".cache" / "other").mkdir(parents=True)
    (tmp_path / ".cache" / "other" / "status.json").write_text("not a run")
    before = open_index(tmp_path).list()
    assert len(before) == 3

    forget(tmp_path)
    assert open_index(tmp_path).list() == before
    assert open_index(tmp_path).reindex() == 3
    assert open_index(tmp_path).list() == before
    running.finish({})
    assert open_index(tmp_path).list(name="other")[0].status is RunStatus.FINISHED


@each_database
def test_an_index_of_an_older_layout_is_made_anew_when_it_is_opened(tmp_path: Path) -> None:
    run = finished(tmp_path)
    before = open_index(tmp_path).list()
    forget(tmp_path)
    with unfilled_index(tmp_path).engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE runs_v2 (key BIGINT PRIMARY KEY, name VARCHAR(255))")
        connection.exec_driver_sql("CREATE TABLE run_fields_v2 (run BIGINT, path VARCHAR(512), value TEXT)")
        connection.exec_driver_sql("INSERT INTO runs_v2 VALUES (1, 'no run of any folder')")
    index = open_index(tmp_path)
    assert index.list() == before
    assert index.list(where=[parse_condition("seed=0")])[0].path == run.record.path


def test_reindexing_forgets_folders_that_are_gone(tmp_path: Path) -> None:
    kept, moved = finished(tmp_path), finished(tmp_path, "moved")
    moved.path.rename(tmp_path / "elsewhere")
    index = open_index(tmp_path)
    index.reindex()
    assert [record.path for record in index.list()] == [kept.record.path]


@each_database
def test_a_moved_runs_folder_keeps_its_index(tmp_path: Path) -> None:
    run = finished(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    index = open_index(tmp_path / "there")
    (record,) = index.find_finished(spec_hash(NAMED))
    assert index.folder(record) == tmp_path / "there" / run.record.path


def test_a_runs_folder_that_does_not_exist_is_empty_and_stays_so(tmp_path: Path) -> None:
    assert open_index(tmp_path / "runs").list() == ()
    assert not (tmp_path / "runs").exists()


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


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"status": "done"}'])
def test_a_damaged_run_folder_is_one_line_that_names_the_file(
    tmp_path: Path, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    status, whole = finished(tmp_path).path / "status.json", finished(tmp_path)
    (tmp_path / "index.sqlite").unlink()
    status.write_text(content)
    assert [record.uid for record in open_index(tmp_path).list()] == [whole.record.uid]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"passed over: {status}: ")


@each_database
def test_labels_are_told_apart_by_case_and_signs_stand_for_themselves(tmp_path: Path) -> None:
    for name in ("High", "high", "a_b", "axb", "50%", "\u706b\u7403"):
        finished(tmp_path, name)
    index = open_index(tmp_path)
    for name in ("High", "high", "a_b", "50%", "\u706b\u7403"):
        assert [record.name for record in index.list(matching=name)] == [name]
        assert [record.name for record in index.list(name=name)] == [name]
        (record,) = index.list(matching=name)
        assert index.list(matching=record.path) == (record,)
    for text in ("hig", "a%", "HIGH", "nul\0", "\udcff", ""):
        assert index.list(matching=text) == ()


@each_database
def test_the_longest_names_and_any_text_can_be_stored(tmp_path: Path) -> None:
    run = open_run(replace(NAMED, "name", "\u706b" * 85), RunOptions(tmp_path))
    reason = "nul \0, surrogate \udcff, newline \n, \u706b" * 100
    run.fail(reason)
    index = open_index(tmp_path)
    (record,) = index.list(name="\u706b" * 85)
    assert record.reason == reason
    index.reindex()
    assert index.list() == (record,)


@each_database
def test_runs_of_the_same_time_have_one_order(tmp_path: Path) -> None:
    runs = [finished(tmp_path, name) for name in ("b", "A", "a-b", "ab", "B")]
    same = "2026-11-22T00:00:00.000000+00:00"
    index = open_index(tmp_path)
    for run in runs:
        index.add(attrs.evolve(run.record, started_at=same))
    names = [record.name for record in index.list()]
    assert names == ["b", "ab", "a-b", "B", "A"]


@each_database
def test_dates_are_read_in_any_zone(tmp_path: Path) -> None:
    run = finished(tmp_path)
    index = open_index(tmp_path)
    index.add(attrs.evolve(run.record, started_at="2026-11-22T18:30:00.000000+00:00"))
    for since in ("2026-11-22", "2026-11-22 18:30", "2026-11-22T19:30+01:00", "20261122T183000Z"):
        assert len(index.list(since=since)) == 1
        assert len(index.list(until=since)) == 0
    assert len(index.list(since="2026-11-22T18:30:01")) == 0
    assert len(index.list(until="2026-11-23")) == 1
    with pytest.raises(UserError, match="'yesterday' is no date or time in ISO 8601, such as 2026-11-22"):
        index.list(since="yesterday")


def grown(schema: int) -> Any:
    """A test-only spec class, before and after one of its fields was renamed."""
    if schema == 1:

        @spec("test-runs-grown")
        class Grown(RootSpec):  # pyright: ignore[reportRedeclaration]
            """Counts."""

            name: str = field(default="", role=LOCATION)
            count: int = 3
    else:

        @spec("test-runs-grown", schema=2)
        class Grown(RootSpec):
            """Counts, in other words."""

            name: str = field(default="", role=LOCATION)
            steps: int = 3

            @staticmethod
            def migrate(payload: dict[str, Any], schema: int) -> dict[str, Any]:
                return {"name": payload["name"], "steps": payload["count"]}

    return Grown


@each_database
def test_a_run_is_found_by_its_first_hash_and_by_the_one_of_today(tmp_path: Path) -> None:
    before = grown(schema=1)(name="grown", count=5)
    run = open_run(before, RunOptions(tmp_path))
    run.finish({})
    today = grown(schema=2)(name="grown", steps=5)
    assert spec_hash(today) != spec_hash(before)
    index = open_index(tmp_path)
    assert index.find_finished(spec_hash(today)) == ()

    index.reindex()
    (record,) = index.find_finished(spec_hash(today))
    assert record.path == run.record.path
    assert (record.spec_hash, record.spec_hash_now) == (spec_hash(before), spec_hash(today))
    assert (record.exact_hash, record.exact_hash_now) == (exact_hash(before), exact_hash(today))
    assert index.find_finished(spec_hash(before)) == (record,)
    hashes = [spec_hash(before), spec_hash(today), exact_hash(before), exact_hash(today)]
    assert set(record.hashes) == set(hashes)
    for digits in hashes:
        assert index.list(matching=digits[:8].upper()) == (record,)
    assert index.list(where=[parse_condition("steps=5")]) == (record,)
    index.set_status(attrs.evolve(record, status=RunStatus.FAILED))
    assert index.list(matching=spec_hash(today))[0].status is RunStatus.FAILED


@each_database
def test_a_payload_that_can_not_be_loaded_is_found_by_what_its_json_says(tmp_path: Path) -> None:
    file = finished(tmp_path).path / "spec.json"
    payload = to_payload(NAMED)
    fields = cast("dict[str, Any]", payload["spec"])
    file.write_text(json.dumps({**payload, "spec": {**fields, "gone": 7, "x" * 600: 1, "nul\0": 2}}))
    index = open_index(tmp_path)
    index.reindex()
    (record,) = index.list(where=[parse_condition("gone>6"), parse_condition("model=wan-transformer")])
    assert record.spec_hash_now is None
    file.write_text("no JSON")
    index.reindex()
    assert index.list(matching=spec_hash(NAMED)) == (record,)
    assert index.fields(record) == {}
