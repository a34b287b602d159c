"""Metrics in TensorBoard's files and in those of Weights & Biases, read back."""

import json
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.train import TrainSpec
from mm_train import trackers
from mm_train.metrics import flat

Metrics = Callable[[Path], list[dict[str, Any]]]
records: Any = import_module("wandb.proto.wandb_internal_pb2")

BLOCK = 32768
"""Bytes of LevelDB's log format, in which wandb writes."""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def stored(file: Path) -> Iterator[Any]:
    """The records of a .wandb file: after a header of 7 bytes, chunks with checksum, length and kind."""
    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record, parts = records.Record.FromString(parts), b""
            yield record


@pytest.mark.usefixtures("offline")
def test_trackers_hold_the_numbers_of_metrics_jsonl_over_a_resume(
    small: TrainSpec, options: RunOptions, metrics_of: Metrics
) -> None:
    changes = {"schedule.steps": 4, "runtime.tensorboard": True, "runtime.wandb_project": "clips"}
    spec = replace(small, {**changes, "checkpoint.every_steps": 2})
    for step in mm_train.steps(spec, options):
        if step.step == 3:
            break
    (folder,) = (options.runs_dir / spec.name).iterdir()
    # As if it had been killed before the last state was written: its third step is done again.
    shutil.rmtree(folder / "checkpoints/step-00000003")
    mm_train.train(spec, attrs.evolve(options, resume=str(folder)))
    lines = [flat(line) for line in metrics_of(folder)]

    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    assert set(board.Tags()["scalars"]) >= {name for line in lines for name in line} - {"step"}
    for name in ("loss", "seconds/forward", "tokens_per_second"):
        shown = [(event.step, event.value) for event in board.Scalars(name)]
        assert shown == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines]

    # Their service may write the last records a moment after it said that the run has ended.
    deadline = time.monotonic() + 30
    while True:
        files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
        found = [record for file in files for record in stored(file)]
        ended = [record for record in found if record.WhichOneof("record_type") == "exit"]
        if len(ended) == 2 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    runs = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert {run.project for run in runs} == {"clips"}
    assert len({run.run_id for run in runs}) == 1
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["schedule"]["steps"] == 4
    history = [record.history for record in found if record.WhichOneof("record_type") == "history"]
    shown = [{one.nested_key[0]: json.loads(one.value_json) for one in row.item} for row in history]
    assert [row["_step"] for row in shown] == [1, 2, 3, 3, 4]
    rows = {row["_step"]: row for row in shown}
    for line in lines:
        assert {name: rows[line["step"]][name] for name in line if name != "step"} == {
            name: number for name, number in line.items() if name != "step"
        }


def test_a_missing_key_is_told_before_anything_is_made(
    small: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wandb.teardown()
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError) as refused:
        mm_train.train(replace(small, "runtime.wandb_project", "clips"), options)
    wandb.teardown()
    assert str(refused.value) == (
        "spec.runtime.wandb_project: no key for Weights & Biases was found; run `wandb login`, set "
        "WANDB_API_KEY, or set WANDB_MODE=offline to keep everything in the run folder"
    )
    assert not (options.runs_dir / small.name).exists()


def test_a_missing_package_is_named_with_its_extra(small: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    spec = replace(small, {"runtime.wandb_project": "clips", "runtime.tensorboard": True})
    with pytest.raises(UserError) as refused:
        trackers.require_trackers(spec)
    assert [str(problem) for problem in refused.value.problems] == [
        "spec.runtime.tensorboard: needs the package tensorboard: pip install 'mm-train[tensorboard]'",
        "spec.runtime.wandb_project: needs the package wandb: pip install 'mm-train[wandb]'",
    ]
