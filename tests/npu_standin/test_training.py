"""Training on the device gives the losses, gradients and weights that training on the CPU gives."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
import torch

from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.specs.data import Cache
from mm_config.specs.dtype import Dtype
from mm_train import train
from tests.mm_train.conftest import SMALL
from tests.npu_standin.trainings import STEPS, assert_equal_runs, metrics, spec_of, stored


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    """One folder for all runs, so that clips are rendered once."""
    return RunOptions(runs_dir=tmp_path_factory.mktemp("runs"))


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
