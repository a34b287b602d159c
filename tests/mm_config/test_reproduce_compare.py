"""What a reproduction compares: metrics, checkpoints, scores, and where two runs came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.tiny_high import SPEC
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.reproducing.compare import compare, told
from mm_config.reproducing.metrics import read_metrics
from mm_config.runs.folder import open_run
from mm_config.runs.provenance_diff import Origin, changes, origin_here, stored_origins
from mm_config.runs.record import RunStatus
from mm_config.schema.errors import UserError

Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Makes a run folder of metric lines."""

    def make(name: str, *lines: dict[str, Any], **result: Any) -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (path / "result.json").write_text(json.dumps(result))
        return path

    return make


def told_differences(old: Path, new: Path, **how: Any) -> list[str]:
    return [str(difference) for difference in compare(old, new, **how).differences]


def test_numbers_are_compared_to_their_last_bit_and_times_are_not(folder: Folder) -> None:
    old = folder("old", {"step": 1, "loss": 0.1 + 0.2, "lr": 0.0, "grad_norm": 1.5, "step_seconds": 1.0})
    same = folder("same", {"step": 1, "loss": 0.1 + 0.2, "lr": 0.0, "grad_norm": 1.5, "step_seconds": 2.0})
    near = folder("near", {"step": 1, "loss": 0.3, "lr": -0.0, "grad_norm": 1.5, "step_seconds": 1.0})
    assert compare(old, same).identical
    assert told(compare(old, same)).startswith("1 step (loss, grad_norm, lr)")
    assert told_differences(old, near) == [
        "step 1: loss 0.30000000000000004 -> 0.3",
        "step 1: lr 0.0 -> -0.0",
    ]


def test_a_missing_step_and_a_missing_number_are_differences(folder: Folder) -> None:
    old = folder("old", {"step": 1, "loss": 1.0}, {"step": 3, "loss": 1.0})
    new = folder(
        "new", {"step": 1, "loss": 1.0, "lr": 0.5}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 1.0}
    )
    assert told_differences(old, new) == ["step 1: lr none -> 0.5", "step 2: metrics none -> logged"]
    assert told_differences(old, new, last_step=1) == ["step 1: lr none -> 0.5"]


def test_the_last_line_of_a_step_counts(folder: Folder) -> None:
    path = folder("resumed", {"step": 1, "loss": 1.0}, {"step": 2, "loss": 5.0}, {"step": 2, "loss": 2.0})
    assert read_metrics(path)[2]["loss"] == 2.0


@pytest.mark.parametrize("line", ["{", "[1]", '{"loss": 1}', '{"step": true}', '{"step": 1.0}'])
def test_a_line_that_is_no_step_is_named(folder: Folder, line: str) -> None:
    path = folder("broken", {"step": 1})
    with (path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: is no JSON"):
        read_metrics(path)


def test_scores_are_compared(folder: Folder) -> None:
    old, new = (
        folder("old", score={"colour": 1.0, "shape": 0.5}),
        folder("new", score={"colour": 0.75, "shape": 0.5}),
    )
    assert told_differences(old, new) == ["score: colour 1.0 -> 0.75"]
    assert told_differences(old, folder("unscored")) == [
        "score: colour 1.0 -> none",
        "score: shape 0.5 -> none",
    ]


def test_what_an_older_run_did_not_record_is_told_as_that() -> None:
    here = origin_here(())
    assert changes(here, here) == ()
    content = {name: value for name, value in here.content.items() if name != "threads"}
    (change,) = changes(Origin(content, here.patches), here)
    assert str(change) == f"threads: not recorded -> {here.content['threads']}"


def test_devices_are_compared_once_the_new_run_knows_them(tmp_path: Path) -> None:
    named = replace(SPEC, "name", "tiny_high")
    one, other = (open_run(named, RunOptions(tmp_path), [device]) for device in ("A100", "H200"))
    (then,), (now,) = (stored_origins(run.path).values() for run in (one, other))
    assert [str(change) for change in changes(then, now)] == ["devices: A100 -> H200"]
    assert changes(then, origin_here(())) == ()


def test_each_process_of_a_resumed_run_is_remembered(tmp_path: Path) -> None:
    named = replace(SPEC, "name", "tiny_high")
    opened = open_run(named, RunOptions(tmp_path))
    opened.fail("a signal", RunStatus.INTERRUPTED)
    open_run(named, RunOptions(tmp_path, resume=str(opened.path)))
    assert list(stored_origins(opened.path)) == ["provenance.json", "provenance-2.json"]
    (opened.path / "provenance-2.json").write_text("{}")
    with pytest.raises(UserError, match=r"provenance-2\.json: is no provenance of a run"):
        stored_origins(opened.path)
