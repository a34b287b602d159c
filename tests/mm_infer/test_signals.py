"""Signals at random times while files are written: none is lost, and what is there is whole."""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest

import mm_config
from mm_config.cli.app import app
from mm_config.runs.index import open_index
from mm_config.runs.record import RunStatus
from mm_config.specs.infer import InferSpec
from tests.mm_train.signalled import KINDS, MM, SEED, Shot, send, table

RIGHT = {"ended", "python", "had finished"}
LONGEST = {"generate": 6.0, "convert": 4.0, "reindex": 0.6}
"""Seconds of each command on a core that others use too; a signal comes at any of them."""
PROMPT = "a red circle moving right"


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: InferSpec, random_spec: InferSpec, release: Path
) -> Path:
    """A folder with a spec, weights, what they convert to, and a run."""
    mm_config.dump(spec, tmp_path / "spec.json")
    mm_config.dump(random_spec.model, tmp_path / "model.json")
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    shutil.copytree(release / "transformer", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    assert app(["generate", "spec.json", "--prompt", PROMPT, "--out", "whole.mp4"]) == 0
    assert app(["convert", "weights", "whole", "--spec", "spec.json"]) == 0
    return tmp_path


@pytest.mark.parametrize("count", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_what_a_signal_leaves_is_whole(place: Path, count: int) -> None:
    print(f"SIGNAL_SEED={SEED}")
    dice = random.Random(SEED)
    known = {run.uid for run in open_index(place / "runs").list()}
    whole = _content(place / "whole")
    commands = {
        "generate": [MM, "generate", "spec.json", "--prompt", PROMPT, "--out"],
        "convert": [MM, "convert", "weights", "--spec", "spec.json"],
        "reindex": [MM, "runs", "reindex"],
    }
    shots = [
        _shot(name, commands[name], place, dice, n)
        for n, name in enumerate(dice.choices([*commands], k=count))
    ]
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda shot: send(shot, place), shots))
    print(table(outcomes))
    assert [one.word for one in outcomes if one.word not in RIGHT] == []
    for number, (shot, outcome) in enumerate(zip(shots, outcomes, strict=True)):
        made = place / f"made{number}{'.mp4' if shot.name == 'generate' else ''}"
        assert made.exists() >= (outcome.word == "had finished" and shot.name != "reindex")
        if made.exists() and shot.name == "convert":
            assert _content(made) == whole
        elif made.exists():
            with av.open(str(made)) as container:
                assert len(list(container.decode(video=0))) == 17
    found = open_index(place / "runs").list()
    assert known <= {run.uid for run in found}
    assert {run.status for run in found} <= {RunStatus.FINISHED, RunStatus.INTERRUPTED}
    assert app(["runs", "reindex"]) == 0
    assert {run.uid for run in open_index(place / "runs").list()} == {run.uid for run in found}


def _shot(name: str, command: list[str], place: Path, dice: random.Random, number: int) -> Shot:
    made = {"generate": [str(place / f"made{number}.mp4")], "convert": [str(place / f"made{number}")]}
    again = dice.choice([None, dice.uniform(0, 0.5)])
    after = dice.uniform(0.001, LONGEST[name])
    return Shot(name, [*command, *made.get(name, [])], dice.choice(KINDS), after, again)


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
