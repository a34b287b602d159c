"""Planted changes of data, weights and threads: `mm reproduce` names each as the likely cause."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import mm_train
from experiments import tiny, tiny_high
from mm_config import replace
from mm_config.cli.app import app
from mm_config.options import RunOptions, Threads
from mm_config.reproducing.causes import Cause
from mm_config.reproducing.reproduce import Reproduction, reproduce
from mm_config.running import on_threads
from mm_config.running.runners import run
from mm_config.runs import attach
from mm_config.specs import Cache, ManifestSpec, RandomWeights, TrainedBy, TrainSpec
from tests.end_to_end.clips import SMALL, fill


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with on_threads(Threads(openmp=1, torch=1)):
        yield


@pytest.fixture
def training(tmp_path: Path) -> TrainSpec:
    fill(tmp_path / "data", 1)
    sizes = {"data.batch_size": 2, "data.num_frames": 5, "data.height": 32, "data.width": 32}
    steps = {"schedule.steps": 2, "schedule.warmup_steps": 0, "data.cache": Cache.NONE, "name": "clips"}
    dataset = ManifestSpec(name="my/clips", path=str(tmp_path / "data"))
    return replace(tiny_high.SPEC, {**SMALL, **sizes, **steps, "data.dataset": dataset})


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    return RunOptions(runs_dir=tmp_path / "runs")


def again(folder: Path, options: RunOptions) -> Reproduction:
    made = reproduce(attach(folder), options)
    assert made is not None
    return made


def test_other_data_under_a_name_are_the_cause(
    training: TrainSpec, options: RunOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = mm_train.train(training, options).run_dir
    fill(tmp_path / "data", 2)
    capsys.readouterr()
    assert app(["reproduce", str(stored), "--runs-dir", str(options.runs_dir)]) == 1
    printed = capsys.readouterr()
    (likely,) = (line for line in printed.out.splitlines() if line.startswith("  likely "))
    assert likely.startswith("  likely      data: spec.data.dataset: ")
    assert "b.mp4 is sha256 " in likely and "c.mp4 is 'a red square 2', was 'a red square 1'" in likely
    largest = [line.split()[1] for line in printed.out.splitlines() if line.startswith("  largest ")]
    assert largest == ["numbers", "tensors"]


def test_the_very_weights_are_taken_and_where_they_are_gone_what_they_were_made_of_is_told(
    training: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    shown = {"samples.prompts": ("a red square",), "samples.seeds": (1,), "samples.scorer": None}
    sizes = {"num_frames": 5, "height": 32, "width": 32, "sampler.steps": 2, "runtime.build_missing": True}
    weights = {"high_noise": TrainedBy(spec=training), "low_noise": RandomWeights(seed=1)}
    stored = run(replace(tiny.SPEC, {**SMALL, **shown, **sizes, **weights}), options).run_dir
    fill(tmp_path / "data", 2)
    accepting = RunOptions(runs_dir=options.runs_dir, accept_content=True)
    mm_train.train(training, accepting)
    made = again(stored, options)
    assert made.comparison.identical and made.suspects == ()

    first_training = min((options.runs_dir / "clips").iterdir())
    shutil.rmtree(first_training / "checkpoints")
    made = again(stored, options)
    (first, *_) = made.suspects
    assert (made.comparison.identical, first.cause) == (False, Cause.WEIGHTS)
    weights, data = first.changes
    assert weights.name == "weights spec.high_noise" and f"of clips/{first_training.name}" in weights.old
    assert data.name == "weights spec.high_noise, data spec.data.dataset" and "b.mp4 is sha256" in data.new


def test_another_number_of_threads_is_the_cause_and_like_undoes_it(
    training: TrainSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = {
        "model.hidden_size": 256,
        "model.num_attention_heads": 4,
        "model.ffn_dim": 512,
    }
    stored = mm_train.train(replace(training, wide), options).run_dir
    words = ["reproduce", str(stored), "--runs-dir", str(options.runs_dir)]
    with on_threads(Threads(openmp=2, torch=2)):
        capsys.readouterr()
        assert app(words) == 1
        assert "  likely      number of threads: threads: 1 -> 2; intra_op_threads: 1 -> 2" in (
            capsys.readouterr().out.splitlines()
        )
        assert app([*words, "--like", str(stored)]) == 0
