"""Numbers that stay on the device between logged steps, and what they decide there."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.data import Cache
from mm_config.specs.train import TrainSpec
from mm_train import training
from mm_train.clipping import clip_gradients, local_of
from mm_train.updating import update
from mm_train.work import Training
from tests.mm_train.reads import DeviceReads

Metrics = Callable[[Path], list[dict[str, Any]]]
RunRanks = Callable[..., None]


@pytest.fixture
def as_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the loop leave numbers where they are, as it does where reading them keeps a device waiting."""
    monkeypatch.setattr(Training, "reads_at_once", False)


@pytest.mark.usefixtures("as_accelerator")
def test_nothing_is_read_from_the_device_between_two_logged_steps(
    small: TrainSpec, options: RunOptions, metrics_of: Metrics
) -> None:
    changes = {"schedule.steps": 9, "runtime.log_every": 4, "data.cache": Cache.NONE}
    spec = replace(small, {**changes, "runtime.micro_batch_size": 4})
    given, counted = list[mm_train.Step](), list[list[str]]()
    with DeviceReads() as reads:
        running = mm_train.steps(spec, options)
        given.append(next(running))
        reads.taken()  # Those of loading.
        for step in running:
            given.append(step)
            counted.append(reads.taken())
            if step.step == 6:
                assert step.loss > 0
                assert reads.taken() == ["tolist"]
    assert counted == [[], [], ["tolist"], [], [], [], ["tolist"], []]
    (folder,) = (options.runs_dir / spec.name).iterdir()
    lines = metrics_of(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [(line["loss"], line["grad_norm"]) for line in lines] == [
        (step.loss, step.grad_norm) for step in given
    ]


def test_a_loss_that_is_not_finite_is_noticed_later_and_has_changed_nothing(
    small: TrainSpec, options: RunOptions, metrics_of: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"optim.lr": 1e18, "schedule.warmup_steps": 0, "runtime.log_every": 7}
    spec = replace(small, changes)
    built = list[tuple[nn.Module, torch.optim.Optimizer]]()

    def build(network: nn.Module, *rest: Any) -> torch.optim.Optimizer:
        built.append((network, real(network, *rest)))
        return built[-1][1]

    real = training.build_optimizer
    monkeypatch.setattr(training, "build_optimizer", build)
    with pytest.raises(UserError) as at_once:
        mm_train.train(spec, options)
    bad = 1 + len(metrics_of(max((options.runs_dir / spec.name).iterdir())))
    assert 1 < bad < 7
    monkeypatch.setattr(Training, "reads_at_once", False)
    with pytest.raises(UserError) as later:
        mm_train.train(replace(spec, "name", f"{spec.name}_later"), options)
    folder = max((options.runs_dir / f"{spec.name}_later").iterdir())
    assert str(later.value) == str(at_once.value)
    assert f"step {bad}: the loss is" in str(later.value)
    assert [line["step"] for line in metrics_of(folder)] == list(range(1, bad))
    (first, second) = (state_of(*pair) for pair in built)
    assert all(torch.equal(first[name], second[name]) for name in first)
    counts = [kept["step"] for kept in built[1][1].state.values()]
    assert all(count == bad - 1 for count in counts)


def state_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    moments = {
        f"{index}.{name}": value
        for index, kept in enumerate(optimizer.state.values())
        for name, value in kept.items()
    }
    return {**network.state_dict(), **moments}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_update_from_numbers_that_are_not_finite_spoils_nothing(fused: bool, value: float) -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, fused=fused)
    bad = torch.zeros(())

    def step(norm: float, gradient: float) -> None:
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        update(optimizer, [torch.ones(()), torch.tensor(norm)], bad)

    step(1.0, 0.5)
    before = {name: tensor.clone() for name, tensor in state_of(network, optimizer).items()}
    step(value, value)
    step(1.0, 0.5)  # The run goes on until somebody looks: that is no reason to go on from a bad state.
    after = state_of(network, optimizer)
    assert float(bad) == 1.0
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(after[name], before[name]) for name in before) is fused


def _one_rank_has_a_nan(rank: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    fully_shard(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, fused=True)
    bad = torch.zeros(())
    for gradient in (0.5, math.nan):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
            if rank == 1:
                local_of(parameter.grad).fill_(gradient)
        norm = clip_gradients(network.parameters(), 1.0)
        before = [local_of(parameter).clone() for parameter in network.parameters()]
        update(optimizer, [norm], bad)
        same = [torch.equal(*both) for both in zip(before, map(local_of, network.parameters()), strict=True)]
        assert all(same) is math.isnan(gradient)
    assert float(bad) == 1.0


def test_a_nan_on_one_rank_reaches_the_weights_of_none(run_ranks: RunRanks) -> None:
    run_ranks(_one_rank_has_a_nan)
