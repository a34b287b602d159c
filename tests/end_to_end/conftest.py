"""A training over a small data set, and a generation from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments import tiny, tiny_high
from mm_config import replace
from mm_config.options import RunOptions
from mm_config.specs import Cache, InferSpec, ManifestSpec, RandomWeights, TrainedBy, TrainSpec
from tests.end_to_end.clips import SMALL, fill


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    fill(folder, 1)
    return folder


@pytest.fixture
def training(data: Path) -> TrainSpec:
    torch.set_num_threads(1)
    changes = {
        **SMALL,
        "name": "clips",
        "data.dataset": ManifestSpec(name="my/clips", path=str(data)),
        "data.batch_size": 2,
        "data.num_frames": 5,
        "data.height": 32,
        "data.width": 32,
        "data.cache": Cache.NONE,
        "schedule.steps": 2,
        "schedule.warmup_steps": 0,
    }
    return replace(tiny_high.SPEC, changes)


@pytest.fixture
def generation(training: TrainSpec) -> InferSpec:
    weights = {"high_noise": TrainedBy(spec=training), "low_noise": RandomWeights(seed=1)}
    sizes = {"num_frames": 5, "height": 32, "width": 32, "sampler.steps": 2, "samples.scorer": None}
    shown = {"samples.prompts": ("a red square",), "samples.seeds": (1,), "name": "shown"}
    return replace(tiny.SPEC, {**SMALL, **weights, **sizes, **shown})


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    return RunOptions(runs_dir=tmp_path / "runs")
