"""A training run as the target of `mm generate`: its weights make the videos that it made itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mm_config
import mm_train
from experiments import tiny_high
from mm_config import replace
from mm_config.cli.app import app
from mm_config.options.run_options import RunOptions
from mm_config.specs.diffusion import Expert
from mm_config.specs.lora import LoraSpec
from mm_config.specs.optim import EmaSpec
from mm_config.specs.train import TrainSpec
from mm_data import read_mp4
from tests.mm_train.conftest import SMALL
from tests.mm_train.test_sampling import SAMPLES

NAME = "a-red-circle-moving-up-7.mp4"


@pytest.fixture
def spec() -> TrainSpec:
    changes = {**SMALL, "samples": SAMPLES, "data.batch_size": 4, "schedule.steps": 2, "name": "target"}
    return replace(tiny_high.SPEC, changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"expert": Expert.LOW_NOISE, "ema": EmaSpec(decay=0.5)},
        {"lora": LoraSpec(rank=4)},
        {"samples.other_expert": None, "expert": Expert.SINGLE, "diffusion.boundary": None},
    ],
    ids=["high", "average-of-low", "adapter", "single"],
)
def test_its_weights_make_its_videos(
    changes: dict[str, Any], spec: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    run_dir = mm_train.train(replace(spec, changes), options).run_dir
    words = ("--prompt", "a red circle moving up", "--seed", "7", "--out", str(tmp_path / "x.mp4"))
    assert app(["generate", str(run_dir), *words, "--runs-dir", str(options.runs_dir)]) == 0
    (expected,) = run_dir.glob(f"samples/step-00000002/{NAME}")
    assert np.array_equal(read_mp4(tmp_path / "x.mp4").numpy(), read_mp4(expected).numpy())


@pytest.mark.parametrize(
    ("field", "why"),
    [
        ("samples", "so nothing says how its videos are made; write an inference spec with TrainedBy"),
        (
            "samples.other_expert",
            "and a video takes both experts; say it, or write an inference spec with TrainedBy",
        ),
    ],
)
def test_what_a_training_does_not_say_is_asked_for(
    field: str,
    why: str,
    spec: TrainSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    mm_config.dump(replace(spec, field, None), "spec.json")
    assert app(["generate", "spec.json", "--prompt", "a", "--out", "x.mp4"]) == 2
    assert capsys.readouterr().err == f"spec.{field}: is None, {why}\n"
