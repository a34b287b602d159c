"""AdamW with moments of 8 bits: near AdamW, with states that have names, sharded in any way."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

import mm_models
import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.specs.optim import AdamWSpec
from mm_config.specs.train import PrecisionSpec, TrainSpec
from mm_models.networks import copy_whole
from mm_train import carried_out
from mm_train.carried_out import CARRIED_OUT
from mm_train.optim import build_optimizer, make_moments, named_moments, set_learning_rate
from mm_train.parallelize import materialize
from mm_train.sharding import shard
from tests.forked_ranks import RunRanks, all_ranks

CPU = torch.device("cpu")
SPEC = AdamWSpec(lr=1e-2, state_bits=8)


@pytest.fixture(autouse=True)
def uncompiled() -> Iterator[None]:
    """The update as torchao wrote it: compiling it takes seconds for each shape."""
    pytest.importorskip("torchao")
    with torch.compiler.set_stance("force_eager"):
        yield


def update(network: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in network.parameters():
        whole = torch.randn(tuple(parameter.shape), generator=generator)
        parameter.grad = empty = torch.zeros_like(parameter)
        copy_whole(whole, empty)
    set_learning_rate(optimizer, 1e-2)
    optimizer.step()
    optimizer.zero_grad()


def test_it_moves_weights_nearly_as_adamw_does_with_a_quarter_of_its_state() -> None:
    torch.manual_seed(0)
    network, exact = nn.Linear(512, 8), nn.Linear(512, 8)
    exact.load_state_dict(network.state_dict())
    before = network.weight.detach().clone()
    moving = build_optimizer(network, SPEC, CPU), build_optimizer(exact, AdamWSpec(lr=1e-2), CPU)
    for step in range(5):
        for one, optimizer in zip((network, exact), moving, strict=True):
            update(one, optimizer, step)
    difference = (network.weight - exact.weight).detach().norm() / (exact.weight - before).detach().norm()
    assert 0 < float(difference) < 0.05
    assert torch.allclose(network.bias, exact.bias, atol=1e-6)
    kept = named_moments(network, moving[0])
    assert {name: tuple(value.shape) for name, value in kept.items() if "weight" in name} == {
        "weight.exp_avg.codes": (8, 512),
        "weight.exp_avg.scale": (8, 2),
        "weight.exp_avg_sq.codes": (8, 512),
        "weight.exp_avg_sq.scale": (8, 2),
    }
    assert sum(value.nbytes for name, value in kept.items() if "weight" in name) == 2 * 8 * (512 + 4 * 2)


def _over_two_ranks(rank: int, small: TrainSpec) -> None:
    # The modulation tables have one row, which leaves a rank nothing.
    model = replace(small.model, {"hidden_size": 128, "ffn_dim": 256, "num_layers": 1})
    alone, network = mm_models.build(model, device="cpu"), mm_models.build(model)
    shard(network, small.fsdp, PrecisionSpec(), all_ranks(), CPU)
    materialize(network, CPU)
    states: list[dict[str, Tensor]] = []
    for one in (alone, network):
        mm_models.initialize(one, 1)
        optimizer = build_optimizer(one, SPEC, CPU)
        for step in range(3):
            update(one, optimizer, step)
        states.append(named_moments(one, optimizer))
    whole, sharded = states
    assert whole.keys() == sharded.keys() and "blocks.0.scale_shift_table.exp_avg.codes" in whole
    for name, value in sharded.items():
        assert isinstance(value, DTensor)
        assert torch.equal(value.full_tensor(), whole[name]), name


def test_shards_of_its_state_are_parts_of_what_one_process_has(small: TrainSpec, run_ranks: RunRanks) -> None:
    run_ranks(_over_two_ranks, small)


def goes_on_to_the_bit(small: TrainSpec, options: RunOptions) -> None:
    wide = {"model.num_layers": 1, "model.ffn_dim": 256, "data.batch_size": 2}
    spec = replace(small, {**wide, "optim": SPEC, "schedule.steps": 2, "schedule.warmup_steps": 0})
    once = mm_train.train(spec, options)
    with pytest.raises(StoppedEarly) as stopped:
        mm_train.train(spec, attrs.evolve(options, stop_after=1))
    again = mm_train.train(spec, attrs.evolve(options, resume=str(stopped.value.run_dir)))
    for name in ("model", "optimizer"):
        first, second = (
            {
                key: value
                for file in (one.checkpoint / name).glob("*")
                for key, value in load_file(file).items()
            }
            for one in (once, again)
        )
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
        assert name == "model" or first["blocks.0.ffn.net.2.weight.exp_avg.codes"].dtype == torch.uint8


def test_a_training_goes_on_to_the_bit(small: TrainSpec, options: RunOptions) -> None:
    goes_on_to_the_bit(small, options)


@pytest.mark.slow
def test_a_training_with_a_compiled_update_goes_on_to_the_bit(small: TrainSpec, options: RunOptions) -> None:
    with torch.compiler.set_stance("default"):
        goes_on_to_the_bit(small, options)


def test_without_torchao_it_says_what_to_install(small: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried_out, "find_spec", lambda name: None)
    (problem,) = CARRIED_OUT.refusals(replace(small, "optim", SPEC))
    assert str(problem) == (
        "spec.optim.state_bits: is 8, which needs torchao: pip install 'mm-train[torchao]'"
    )


def test_made_moments_are_empty_and_leave_the_weights() -> None:
    network = nn.Linear(512, 8)
    before = network.weight.detach().clone()
    optimizer = build_optimizer(network, SPEC, CPU)
    make_moments(network, optimizer, 7)
    assert torch.equal(network.weight, before)
    assert [float(group["lr"]) for group in optimizer.param_groups] == [pytest.approx(1e-2)]
    assert float(optimizer.state[network.weight]["step"]) == 7
