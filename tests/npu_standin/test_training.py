"""Training on the device gives the losses, gradients and weights that training on the CPU gives."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from experiments import tiny_high
from mm_config import replace
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.specs.data import Cache
from mm_config.specs.dtype import Dtype
from mm_config.specs.train import TrainSpec
from mm_models.weights.layouts import read_group
from mm_train import train
from tests.mm_train.conftest import SMALL
from tests.npu_standin.parity import TOLERANCE, assert_all_equal

STEPS = 4


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    """One folder for all runs, so that clips are rendered once."""
    return RunOptions(runs_dir=tmp_path_factory.mktemp("runs"))


def spec_of(name: str, device: str, changes: dict[str, Any] | None = None) -> TrainSpec:
    wanted = {"name": name, "runtime.device": device, "schedule.steps": STEPS, "optim.max_grad_norm": 0.05}
    return replace(tiny_high.SPEC, {**SMALL, **wanted, **(changes or {})})


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def stored(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Weights, and both moments of the optimizer, of a checkpoint."""
    return {
        group: {name: one.read() for name, one in read_group(folder, group).items()}
        for group in ("model", "optimizer")
    }


def assert_equal_runs(actual: Path, expected: Path, steps: int = STEPS) -> None:
    """Equal losses and norms of every step, and equal weights and moments after the last."""
    pairs = list(zip(metrics(actual), metrics(expected), strict=True))
    assert len(pairs) == steps
    for ours, theirs in pairs:
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=TOLERANCE)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=10 * TOLERANCE)
    ours, theirs = (stored(folder / "checkpoints" / f"step-{steps:08d}") for folder in (actual, expected))
    for group in theirs:
        assert_all_equal(ours[group], theirs[group])


@pytest.mark.parametrize("cache", [Cache.LATENTS, Cache.NONE])
def test_training_equals_the_cpus(
    options: RunOptions, npu: torch.device, npu_calls: Counter[str], cache: Cache
) -> None:
    changes = {"data.cache": cache, "runtime.micro_batch_size": 4}
    expected = train(spec_of(f"cpu_{cache.value}", "cpu", changes), options)
    assert not npu_calls
    actual = train(spec_of(f"npu_{cache.value}", "npu", changes), options)
    assert npu_calls["npu_fusion_attention_grad"] == 2 * STEPS * 2 * SMALL["model.num_layers"]
    assert_equal_runs(actual.run_dir, expected.run_dir)


def test_a_resumed_training_repeats_every_bit(options: RunOptions, npu: torch.device) -> None:
    whole = train(spec_of("whole", "npu"), options)
    broken = spec_of("broken", "npu")
    with pytest.raises(StoppedEarly) as stopped:
        train(broken, attrs.evolve(options, stop_after=2))
    resumed = train(broken, attrs.evolve(options, resume=str(stopped.value.run_dir)))
    assert [row["loss"] for row in metrics(resumed.run_dir)] == [
        row["loss"] for row in metrics(whole.run_dir)
    ]
    ours, theirs = stored(resumed.checkpoint), stored(whole.checkpoint)
    for group in theirs:
        assert all(torch.equal(ours[group][name], one) for name, one in theirs[group].items())


def test_bfloat16_under_fsdp2_stays_near_float32(options: RunOptions, npu: torch.device) -> None:
    exact = train(spec_of("float32", "npu"), options)
    rounded = train(spec_of("bfloat16", "npu", {"precision.compute": Dtype.BFLOAT16}), options)
    for ours, theirs in zip(metrics(rounded.run_dir), metrics(exact.run_dir), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.02)
