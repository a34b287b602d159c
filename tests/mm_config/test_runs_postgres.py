"""What only a database server can do wrong; the other tests of the index run on PostgreSQL too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from experiments.tiny_high import SPEC
from mm_config import spec_hash
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
from mm_config.runs.index import open_index
from mm_config.schema.errors import UserError


def told(runs_dir: Path) -> str:
    """What a person reads who opens the index: one line."""
    with pytest.raises(UserError) as caught:
        open_index(runs_dir).list()
    (problem,) = caught.value.problems
    assert "\n" not in str(problem)
    return str(problem)


def test_runs_of_several_folders_share_a_server(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM_RUNS_URL", postgres_url)
    here, there = (open_run(SPEC, RunOptions(tmp_path / name)) for name in ("here", "there"))
    here.finish({})
    there.finish({})
    assert not (tmp_path / "here" / "index.sqlite").exists()
    index = open_index(tmp_path / "here")
    assert index.reindex() == 1
    assert {record.uid for record in index.list()} == {here.record.uid, there.record.uid}
    (record,) = index.find_finished(spec_hash(SPEC))
    assert index.folder(record) == here.path


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_the_url_works(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("MM_RUNS_URL", f"{scheme}:{postgres_url.partition(':')[2]}")
    assert open_index(tmp_path).list() == ()


def test_a_user_without_rights_is_told_so(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM_RUNS_URL", f"{postgres_url}%20-cdefault_transaction_read_only%3Don")
    line = told(tmp_path)
    assert line.startswith("run index: postgresql")
    assert "can't be used: cannot execute CREATE TABLE in a read-only transaction" in line
    assert "MM_RUNS_URL names this database" in line


def test_a_server_that_does_not_answer_is_one_line_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg", reason="needs the extra `postgres` of mm-config")
    monkeypatch.setenv("MM_RUNS_URL", f"postgresql://mm:hush@/runs?host={tmp_path}")
    line = told(tmp_path)
    assert line.startswith("run index: postgresql+psycopg://mm:***@/runs?")
    assert "hush" not in line
    assert "No such file or directory" in line


def test_a_missing_driver_is_told_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM_RUNS_URL", "postgresql://mm@/runs")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert told(tmp_path) == (
        "MM_RUNS_URL: needs the driver psycopg, which is not installed (pip install 'mm-config[postgres]')"
    )
    monkeypatch.setenv("MM_RUNS_URL", "postgresql+pg8000://mm@/runs")
    monkeypatch.setitem(sys.modules, "pg8000", None)
    assert told(tmp_path) == "MM_RUNS_URL: needs the driver pg8000, which is not installed"
