"""Trainings that only deterministic kernels may carry out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.data import Cache
from mm_config.specs.train import TrainSpec
from mm_train import losses

Metrics = Callable[[Path], list[dict[str, Any]]]


def test_two_runs_are_equal_to_the_bit(small: TrainSpec, options: RunOptions, metrics_of: Metrics) -> None:
    changes = {"schedule.steps": 5, "runtime.micro_batch_size": 4, "data.cache": Cache.NONE}
    spec = replace(small, {**changes, "runtime.deterministic": True})
    lines, states = list[list[tuple[float, ...]]](), list[dict[str, torch.Tensor]]()
    for _ in range(2):
        result = mm_train.train(
            spec, options, on_step=lambda _: _require(torch.are_deterministic_algorithms_enabled())
        )
        assert not torch.are_deterministic_algorithms_enabled()
        lines.append([(line["loss"], line["grad_norm"]) for line in metrics_of(result.run_dir)])
        files = sorted(result.checkpoint.rglob("*.safetensors"))
        states.append({name: tensor for file in files for name, tensor in load_file(file).items()})
    assert lines[0] == lines[1]
    first, second = states
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def _require(holds: bool) -> None:
    assert holds


def test_an_operation_without_a_deterministic_form_ends_the_run_by_its_name(
    small: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_put(*args: Any) -> torch.Tensor:
        loss = real(*args)
        torch.zeros(2).put_(torch.tensor([0, 0]), torch.ones(2))
        return loss

    real = losses.losses_of
    monkeypatch.setattr(losses, "losses_of", with_put)
    spec = replace(small, {"schedule.steps": 1, "schedule.warmup_steps": 0})
    assert mm_train.train(spec, options).steps == 1
    with pytest.raises(UserError, match=r"^spec\.runtime\.deterministic: put_ does not have a deterministic"):
        mm_train.train(replace(spec, "runtime.deterministic", True), options)
