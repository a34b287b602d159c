"""`mm runs compare`, and the page of one run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments import tiny, tiny_high, tiny_low
from mm_config import replace, spec_hash
from mm_config.cli.app import app
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
from mm_config.schema.evolve import get
from mm_config.specs.weights import RandomWeights


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """A run, another with more learning rate that took longer, and a failed generation."""
    base = replace(tiny_high.SPEC, "name", "base")
    open_run(base, RunOptions(tmp_path)).finish(
        {"kind": "train", "loss": 0.5, "seconds": 10.0, "timings": {"load": 1.5}, "samples": [1, 2]}
    )
    changes = {"name": "other", "optim.lr": 2e-3, "optim.betas": (0.9, 0.95), "data.workers": 3}
    open_run(replace(base, changes), RunOptions(tmp_path)).finish({"loss": 0.25, "peak_gib": 1.25})
    open_run(replace(tiny.SPEC, "name", "made"), RunOptions(tmp_path)).fail("out\nof memory")
    return tmp_path


def mm(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    assert app(("runs", *argv)) == status
    printed = capsys.readouterr()
    assert (printed.out if status == 2 else printed.err) == ""
    return printed.err if status == 2 else printed.out


def compared(capsys: pytest.CaptureFixture[str], runs_dir: Path, *runs: str) -> dict[str, Any]:
    return json.loads(mm(capsys, "compare", *runs, "--json", "--runs-dir", str(runs_dir)))


def test_the_fields_that_differ_stand_with_each_runs_value_and_their_unit(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = compared(capsys, runs_dir, "base", "other")
    base, other = (row["path"] for row in report["runs"])
    assert [row["name"] for row in report["runs"]] == ["base", "other"]
    spec = tiny_high.SPEC
    assert {row["path"]: row["values"] for row in report["fields"]} == {
        "spec.name": {base: "base", other: "other"},
        "spec.data.workers": {base: spec.data.workers, other: 3},
        "spec.optim.lr": {base: spec.optim.lr, other: 2e-3},
        "spec.optim.betas.1": {base: get(spec, "optim.betas.1"), other: 0.95},
    }
    figures = report["figures"]
    assert figures["loss"] == {base: 0.5, other: 0.25}
    assert figures["seconds"] == {base: 10.0}
    assert figures["timings.load"] == {base: 1.5}
    assert figures["peak_gib"] == {other: 1.25}
    assert figures["status"] == {base: "finished", other: "finished"}
    assert figures["spec_hash"][base] == spec_hash(spec)
    assert set(figures["host"]) == {base, other}
    assert not {"samples", "kind"} & figures.keys()
    assert not any(name.startswith("package.") for name in figures)


def test_three_runs_are_a_table_with_a_column_each(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = replace(tiny_high.SPEC, {"name": "frames", "data.num_frames": 13})
    open_run(frames, RunOptions(runs_dir)).fail("out\nof memory")
    place = ("--runs-dir", str(runs_dir))
    lines = mm(capsys, "compare", "base", "other", "frames", *place).splitlines()
    rows = {cells[0]: cells[1:] for line in lines if (cells := line.split())}
    assert lines[0] == "fields that differ"
    assert [run.partition("/")[0] for run in rows["field"]] == ["base", "other", "frames", "unit"]
    assert rows["spec.data.num_frames"] == ["17", "17", "13", "frames"]
    assert rows["seconds"] == ["10.0", "-", "-"]
    assert rows["status"] == ["finished", "finished", "failed"]
    assert r'"out\nof memory"' in "\n".join(lines)
    assert len({line.split()[0] for line in lines if "git" in line}) <= 1


def test_specs_of_other_kinds_are_not_taken_apart(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low = replace(
        tiny_low.SPEC, {"name": "low", "expert": tiny_high.SPEC.expert, "start_from": RandomWeights()}
    )
    open_run(low, RunOptions(runs_dir)).finish({})
    fresh = compared(capsys, runs_dir, "low", "base")
    assert all(not row["path"].startswith("spec.start_from.") for row in fresh["fields"])
    trained = replace(tiny_low.SPEC, "name", "trained")
    open_run(trained, RunOptions(runs_dir)).finish({})
    report = compared(capsys, runs_dir, "low", "trained")
    paths = [row["path"] for row in report["fields"]]
    assert "spec.start_from" in paths
    assert all(not path.startswith("spec.start_from.") for path in paths)


def test_a_training_that_weights_come_from_is_compared_field_by_field(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"name": "longer", "high_noise.spec.schedule.steps": 7}
    open_run(replace(tiny.SPEC, changes), RunOptions(runs_dir)).finish({})
    report = compared(capsys, runs_dir, "made", "longer")
    (row,) = (row for row in report["fields"] if row["path"] != "spec.name")
    assert row["path"] == "spec.high_noise.spec.schedule.steps"
    assert list(row["values"].values()) == [tiny_high.SPEC.schedule.steps, 7]


def test_runs_without_a_difference_or_a_folder(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = open_run(replace(tiny_high.SPEC, "name", "base"), RunOptions(runs_dir))
    again.finish({})
    first = next(path for path in (runs_dir / "base").iterdir() if path != again.path)
    place = ("--runs-dir", str(runs_dir))
    page = mm(capsys, "compare", str(first), again.path.name, *place)
    assert page.startswith("no field differs\nresults\n")
    before = compared(capsys, runs_dir, str(first), "other")
    shutil.rmtree(first)
    gone = compared(capsys, runs_dir, f"base/{first.name}", "other")
    by_path = [{row["path"]: row["values"] for row in report["fields"]} for report in (before, gone)]
    assert by_path[0] == by_path[1]
    assert "loss" not in gone["figures"] or len(gone["figures"]["loss"]) == 1


def test_mistakes_of_a_comparison(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--runs-dir", str(runs_dir))
    told = mm(capsys, "compare", "base", "bse", "base", *place, status=2).splitlines()
    assert told[0] == f"bse: no run in {runs_dir} has this id, label or hash"
    assert told[1].startswith("base: is the same run as base: base/")
    assert mm(capsys, "compare", *place, status=2).startswith(
        "expected compare RUN RUN ..., got compare (usage:"
    )


def test_a_page_says_what_of_a_stored_spec_can_not_be_read(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--runs-dir", str(runs_dir))
    (run,) = (runs_dir / "other").iterdir()
    file = run / "spec.json"
    file.write_text(file.read_text().replace('"seed": 0', '"sede": 0'))
    page = mm(capsys, "show", "other", *place).splitlines()
    assert any(line.split()[:4] == ["problem", f"{file}:", "spec.sede:", "unknown"] for line in page)
    report = json.loads(mm(capsys, "show", "other", "--json", *place))
    assert any(line.startswith(f"{file}: spec.sede: unknown key") for line in report["problems"])
    paths = [row["path"] for row in compared(capsys, runs_dir, "base", "other")["fields"]]
    assert "spec.sede" in paths and "spec.seed" in paths
