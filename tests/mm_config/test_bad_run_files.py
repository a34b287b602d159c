"""A bad file in one run folder is named in one line and stops nothing else."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from experiments.tiny_high import SPEC
from mm_config.cli.app import app
from mm_config.content import Input
from mm_config.options.run_options import RunOptions
from mm_config.running.runners import equal_run
from mm_config.running.trained_by import resolve_weights
from mm_config.runs.folder import open_run
from mm_config.specs.weights import TrainedBy
from tests.mm_config.damage import as_json, mutate

FILES = ("result.json", "provenance.json", "spec.json", "inputs.json", "status.json")
INPUTS = {"data.dataset": Input(digest="ab" * 32, kind="shapes", details={"order_key": "cd" * 32})}


def train(runs_dir: Path) -> Path:
    run = open_run(SPEC, RunOptions(runs_dir), inputs=INPUTS)
    checkpoint = run.checkpoints_dir / "step-00000008"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    run.log({"step": 1, "loss": 0.5})
    run.finish({"checkpoint": "checkpoints/step-00000008", "steps": 8, "experts": {}, "videos": []})
    return run.path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A runs folder with three equal runs: two whole ones and, the newest, the one that is damaged."""
    runs_dir = tmp_path_factory.mktemp("runs")
    return train(runs_dir), train(runs_dir), train(runs_dir)


def as_folder(file: Path) -> None:
    file.mkdir()


def as_pipe(file: Path) -> None:
    os.mkfifo(file)


def as_dangling_link(file: Path) -> None:
    file.symlink_to("nowhere")


def as_device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def as_huge(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(1 << 40)


def holding(content: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(content)


DAMAGES = {
    "folder": as_folder,
    "pipe": as_pipe,
    "link": as_dangling_link,
    "device": as_device,
    "huge": as_huge,
    "empty": holding(b""),
    "list": holding(b"[]"),
    "nothing": holding(b"{}"),
    "not UTF-8": holding(b'{"checkpoint": "\xff"}'),
    "NaN": holding(b'{"steps": NaN}'),
    "infinite": holding(b'{"steps": 1e999}'),
    "deep": holding(b'{"a":' * 500 + b"1" + b"}" * 500),
    "deeper": holding(b'{"a":' * 100_000),
    "types": holding(b'{"git": 5, "experts": [1], "videos": {}, "checkpoint": 3, "inputs": [], "uid": []}'),
    "large": holding(b'{"made_of": "", "spec_hash": "", "numerics": 9007199254740992, "inputs": {}}'),
    "outside": holding(b'{"checkpoint": "../../../../etc"}'),
}


def said(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = app(words)
    printed = capfd.readouterr()
    return status, printed.out, printed.err


def stops_nothing(runs: tuple[Path, Path, Path], file: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """Runs every command beside a damaged file, and returns what the last one said of it."""
    one, other, bad = runs
    runs_dir, at = bad.parent.parent, ("--runs-dir", str(bad.parent.parent))
    rest = f"{one.parent.name}/{one.name}", f"{other.parent.name}/{other.name}"
    options, notes = RunOptions(runs_dir), ""
    for words in (("reindex",), (), ("find", SPEC.name or "train"), ("show", rest[0]), ("compare", *rest)):
        status, out, err = said(capfd, "runs", *words, *at)
        assert status == 0, (words, err)
        assert all(str(bad) in line for line in err.splitlines()), err
        assert rest[0] in out or words == ("reindex",)
        notes += err
    of_the_bad = (
        ("runs", "show", bad.name),
        ("runs", "compare", rest[0], bad.name),
        ("diff", str(one), str(bad)),
    )
    for words in of_the_bad:
        status, out, err = said(capfd, *words, *at)
        assert status in (0, 1, 2), words
        assert "Traceback" not in err
        assert all(line.isprintable() for line in (out + err).splitlines()), words
        notes += "\n".join(line for line in (out + err).splitlines() if file.name in line)
    # Weights are taken from a whole run, or from the one that is damaged in what taking them doesn't need.
    weights = resolve_weights(TrainedBy(spec=SPEC), options, False)
    assert isinstance(weights, Path) and weights.is_relative_to(runs_dir.absolute())
    status, _, err = said(capfd, "reproduce", str(bad), "--verify-steps", "99", *at)
    assert status == 2, err
    return notes + err


def damaged_by(
    name: str, damage: str, runs: tuple[Path, Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    file = runs[2] / name
    kept = file.read_bytes()
    file.unlink()
    try:
        DAMAGES[damage](file)
        notes = stops_nothing(runs, file, capfd)
        # An object without keys, or with other ones, is a result and a provenance as good as any. A link that
        # leads nowhere is a file that is missing.
        if damage not in ("nothing", "outside", "types", "large") or (name, damage) in NAMED:
            assert str(file.parent if damage == "link" else file) in notes, (name, damage)
    finally:
        shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
        file.write_bytes(kept)


NAMED = [("result.json", "outside"), ("inputs.json", "large")]
CASES = [(name, damage) for name in FILES for damage in DAMAGES]


def test_some_bad_files_are_named_in_a_line_and_stop_nothing_else(
    runs: tuple[Path, Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for name, damage in random.Random(date.today().toordinal()).sample(CASES, 8):
        damaged_by(name, damage, runs, capfd)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage"), CASES)
def test_a_bad_file_is_named_in_a_line_and_stops_nothing_else(
    runs: tuple[Path, Path, Path], name: str, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged_by(name, damage, runs, capfd)
    assert equal_run(SPEC, RunOptions(runs[0].parents[1])) is None  # Today's inputs are others.


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
def test_whatever_stands_in_a_file_stops_nothing_else(
    runs: tuple[Path, Path, Path], seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(seed)
    for name in FILES * 4:
        file = runs[2] / name
        kept = file.read_bytes()
        try:
            file.write_text(as_json(mutate(json.loads(kept), chance)), errors="surrogatepass")
            stops_nothing(runs, file, capfd)
        finally:
            file.write_bytes(kept)
