"""Where the time of a run went, by lines that are written by hand."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mm_train.ledger import PARTS, Ledger, account_of, begun

FIRST: list[dict[str, Any]] = [
    {"since": 100, "until": 110, "step": 0, "seconds": {"restart": 10}, "goes_on_from": 0, "ranks": 2},
    {"since": 110, "until": 130, "step": 5, "seconds": {"training": 14, "waiting": 2, "checkpoints": 4}},
    {"since": 130, "until": 150, "step": 10, "seconds": {"training": 15, "waiting": 2, "checkpoints": 3}},
]
LEFT = {"since": 150, "until": 157, "step": 13, "seconds": {"training": 7}}


def again(step: int) -> dict[str, Any]:
    """A second process that goes on from a step, 13 seconds after the first was last heard."""
    return {"since": 170, "until": 178, "step": step, "seconds": {"restart": 8}, "goes_on_from": step}


def written(folder: Path, *lines: Any) -> Path:
    (folder / "ledger.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def shifted(seconds: float) -> list[dict[str, Any]]:
    """The lines of a first process that was at work so much later."""
    return [{**line, "since": line["since"] + seconds, "until": line["until"] + seconds} for line in FIRST]


def parts(**seconds: float) -> dict[str, float]:
    return {**dict.fromkeys(PARTS, 0.0), **seconds}


def test_what_no_checkpoint_held_is_lost(tmp_path: Path) -> None:
    account = account_of(written(tmp_path, *FIRST, LEFT, again(10)))
    assert account is not None and account.whole == 78 and account.processes == 2
    assert account.seconds == parts(training=29, waiting=4, checkpoints=7, restart=18, lost=7, down=13)


def test_a_checkpoint_that_is_passed_over_loses_what_it_held(tmp_path: Path) -> None:
    account = account_of(written(tmp_path, *FIRST, LEFT, again(5)))
    assert account is not None and account.whole == 78
    assert account.seconds == parts(training=14, waiting=2, checkpoints=4, restart=18, lost=27, down=13)


def test_what_is_no_stretch_is_passed_over(tmp_path: Path) -> None:
    strange: list[Any] = [
        7,
        [],
        {},
        {**LEFT, "until": "later"},
        {**LEFT, "until": float("nan")},
        {**LEFT, "seconds": {"resting": 1}},
    ]
    folder = written(tmp_path, *FIRST, *strange)
    with (folder / "ledger.jsonl").open("ab") as file:
        file.write(b'\n\xff\n{"since": 150, "unt')
    account = account_of(folder)
    assert account is not None and account.whole == 50
    assert account_of(tmp_path / "elsewhere") is None


def test_a_process_begins_after_the_one_before_and_tells_what_that_left(tmp_path: Path) -> None:
    now = time.time()
    shift = now - 200
    written(tmp_path, *shifted(shift))
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('\n{"since": 1')
    metrics = tmp_path / "metrics.jsonl"
    metrics.touch()
    os.utime(metrics, (0, 157 + shift))
    ledger = Ledger(tmp_path, now - 30)
    ledger.ready(10, 2)
    with ledger.during("waiting"):
        time.sleep(0.05)
    ledger.step = 11
    ledger.close()
    account = account_of(tmp_path)
    assert account is not None and account.processes == 2
    assert account.whole == pytest.approx(time.time() - now + 100, abs=1)
    assert account.seconds["lost"] == pytest.approx(7, abs=1e-3)
    assert account.seconds["down"] == pytest.approx(13, abs=0.01)
    assert account.seconds["restart"] == pytest.approx(40, abs=1)
    assert 0.05 <= account.seconds["waiting"] - 4 < 1


def test_a_process_that_was_there_before_the_last_line_counts_from_that_line(tmp_path: Path) -> None:
    now = time.time()
    shift = now - 200
    written(tmp_path, *shifted(shift))
    Ledger(tmp_path, now - 150).ready(10, 1)
    account = account_of(tmp_path)
    assert account is not None and account.whole == pytest.approx(100, abs=1)
    assert account.seconds["restart"] == pytest.approx(60, abs=1)


def test_only_the_first_run_of_a_command_line_counts_its_process_from_its_start() -> None:
    assert time.time() - begun(from_command_line=False) < 1
    Ledger(None, 0.0)
    assert time.time() - begun(from_command_line=True) < 1
    if os.fork() == 0:
        time.sleep(0.3)
        os._exit(not 0.25 < time.time() - begun(from_command_line=True) < 20)
    assert os.wait()[1] == 0
