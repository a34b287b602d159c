"""Muon against a plain Newton-Schulz, the groups of parameters, and shards against one process."""

from __future__ import annotations

import math
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

import mm_models
import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.specs.optim import AdamWSpec, MuonSpec, ParameterGroupSpec
from mm_config.specs.train import PrecisionSpec, TrainSpec
from mm_models.networks import copy_whole
from mm_train.optim import build_optimizer, make_moments, named_moments, set_learning_rate
from mm_train.parallelize import materialize
from mm_train.sharding import shard
from tests.forked_ranks import RunRanks, all_ranks

CPU = torch.device("cpu")
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Keller Jordan's, https://kellerjordan.github.io/posts/muon."""


class Blocks(nn.Module):
    """A matrix outside of blocks, and two blocks with a wide matrix, a high one and a vector each."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(3, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4)) for _ in range(2))


def gradients(network: nn.Module, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tuple(one.shape), generator=generator, dtype=one.dtype)
        for name, one in network.named_parameters()
    }


def update(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int, lr: float) -> None:
    named = dict(network.named_parameters())
    for name, gradient in gradients(network, seed).items():
        named[name].grad = empty = torch.zeros_like(named[name])
        copy_whole(gradient, empty)
    set_learning_rate(optimizer, lr)
    optimizer.step()
    optimizer.zero_grad()


def orthogonalised(matrix: Tensor, steps: int) -> Tensor:
    """p(X) = a X + b (X X^T) X + c (X X^T)^2 X, on the singular values of the smaller side."""
    a, b, c = COEFFICIENTS
    x = matrix / matrix.norm()
    for _ in range(steps):
        left = x @ x.T if x.shape[0] <= x.shape[1] else None
        right = None if left is not None else x.T @ x
        if left is not None:
            x = a * x + (b * left + c * left @ left) @ x
        else:
            assert right is not None
            x = a * x + x @ (b * right + c * right @ right)
    return x


@pytest.mark.parametrize("nesterov", [False, True])
def test_matrices_in_blocks_follow_muon_and_all_else_adamw(
    nesterov: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    spec = MuonSpec(
        weight_decay=0.1,
        momentum=0.9,
        nesterov=nesterov,
        matched_adamw_rms=0.3,
        groups=(ParameterGroupSpec(parameters=("blocks.1.*",), lr_scale=0.5, weight_decay=0.0),),
    )
    network = Blocks().double()
    # torch rounds to bfloat16 before it iterates: in float64 its steps can be told apart from other ones.
    monkeypatch.setattr(Tensor, "bfloat16", lambda self: self.clone())
    plain = {name: value.detach().clone() for name, value in network.named_parameters()}
    outside = {name: nn.Parameter(value.clone()) for name, value in plain.items() if value.ndim == 1}
    outside["embedding.weight"] = nn.Parameter(plain["embedding.weight"].clone())
    by_hand = AdamW(
        [
            {"params": [one for name, one in outside.items() if "blocks.1" not in name], "weight_decay": 0.1},
            {"params": [one for name, one in outside.items() if "blocks.1" in name], "weight_decay": 0.0},
        ],
        betas=spec.betas,
        eps=spec.eps,
    )
    momenta = {name: torch.zeros_like(value) for name, value in plain.items()}
    optimizer = build_optimizer(network, spec, CPU)
    for step in range(4):
        lr = 0.05 / (step + 1)
        for name, gradient in gradients(network, step).items():
            if name in outside:
                outside[name].grad = gradient.clone()
                continue
            scale, decay = (0.5, 0.0) if "blocks.1" in name else (1.0, 0.1)
            momenta[name] = 0.9 * momenta[name] + 0.1 * gradient
            looked = 0.9 * momenta[name] + 0.1 * gradient if nesterov else momenta[name]
            rate = lr * scale * 0.3 * math.sqrt(max(gradient.shape))
            plain[name] = plain[name] * (1 - lr * scale * decay) - rate * orthogonalised(looked, 5)
        for group, scale in zip(by_hand.param_groups, (1.0, 0.5), strict=True):
            group["lr"] = lr * scale
        by_hand.step()
        update(network, optimizer, step, lr)
    for name, value in network.named_parameters():
        assert torch.allclose(value, outside.get(name, plain[name]), rtol=1e-5, atol=1e-7), name


def test_in_bfloat16_it_is_the_same_to_bfloat16s_rounding() -> None:
    torch.manual_seed(0)
    network = Blocks()
    before = network.blocks[0][0].weight.detach().clone()  # type: ignore[index]
    update(network, build_optimizer(network, MuonSpec(weight_decay=0.0), CPU), 0, 1.0)
    moved = before - network.blocks[0][0].weight.detach()  # type: ignore[index]
    expected = 0.2 * math.sqrt(6) * orthogonalised(gradients(network, 0)["blocks.0.0.weight"], 5)
    assert 1e-6 < float((moved - expected).norm() / expected.norm()) < 2e-2
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.2, rel=0.25)


def test_adamws_groups_are_those_of_torch_made_by_hand() -> None:
    torch.manual_seed(0)
    groups = (
        ParameterGroupSpec(parameters=("*.bias",), weight_decay=0.0),
        ParameterGroupSpec(parameters=("embedding.*", "blocks.0.*"), lr_scale=0.25),
    )
    network, copy = Blocks(), Blocks()
    copy.load_state_dict(network.state_dict())
    named = dict(copy.named_parameters())
    biases = [named[name] for name in named if name.endswith("bias")]
    slower = [named[name] for name in named if not name.endswith("bias") and "blocks.1" not in name]
    rest = [named[name] for name in named if not name.endswith("bias") and "blocks.1" in name]
    by_hand = AdamW(
        [
            {"params": biases, "weight_decay": 0.0},
            {"params": slower, "weight_decay": 0.1},
            {"params": rest, "weight_decay": 0.1},
        ],
        fused=True,
    )
    optimizer = build_optimizer(network, AdamWSpec(weight_decay=0.1, groups=groups), CPU)
    for step in range(3):
        lr = 0.1 / (step + 1)
        for group, scale in zip(by_hand.param_groups, (1.0, 0.25, 1.0), strict=True):
            group["lr"] = lr * scale
        for name, gradient in gradients(copy, step).items():
            named[name].grad = gradient
        by_hand.step()
        update(network, optimizer, step, lr)
    assert all(torch.equal(value, named[name]) for name, value in network.named_parameters())


def test_its_state_has_names_and_can_be_made() -> None:
    network, spec = Blocks(), MuonSpec()
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = build_optimizer(network, spec, CPU)
    make_moments(network, optimizer, 3)
    assert all(torch.equal(value, before[name]) for name, value in network.named_parameters())
    matrices = {f"blocks.{block}.{layer}.weight.momentum_buffer" for block in (0, 1) for layer in (0, 1)}
    found = named_moments(network, optimizer)
    assert {name for name in found if name.endswith("momentum_buffer")} == matrices
    assert "embedding.weight.exp_avg" in found and "blocks.0.0.bias.exp_avg_sq" in found


def _over_two_ranks(rank: int, small: TrainSpec) -> None:
    spec, model = MuonSpec(), replace(small.model, "ffn_dim", 33)  # The shards are of two sizes.
    alone, network = mm_models.build(model, device="cpu"), mm_models.build(model)
    shard(network, small.fsdp, PrecisionSpec(), all_ranks(), CPU)
    materialize(network, CPU)
    for one in (alone, network):
        mm_models.initialize(one, 1)
        optimizer = build_optimizer(one, spec, CPU)
        for step in range(3):
            update(one, optimizer, step, 0.05)
    whole = dict(alone.named_parameters())
    for name, value in network.named_parameters():
        assert isinstance(value, DTensor)
        if value.ndim == 2 and "blocks" in name:
            assert torch.equal(value.full_tensor(), whole[name]), name
        assert torch.allclose(value.full_tensor(), whole[name], rtol=0, atol=1e-6), name


def test_shards_move_as_one_process_does_and_matrices_to_the_bit(
    small: TrainSpec, run_ranks: RunRanks
) -> None:
    run_ranks(_over_two_ranks, small)


@pytest.mark.parametrize(
    "optim", [MuonSpec(lr=5e-3), AdamWSpec(lr=5e-3, adaptive_clip_decay=0.9, max_grad_norm=0.5)]
)
def test_a_training_goes_on_to_the_bit(
    optim: MuonSpec | AdamWSpec, small: TrainSpec, options: RunOptions
) -> None:
    spec = replace(small, {"optim": optim, "schedule.steps": 4, "name": type(optim).__name__})
    once = mm_train.train(spec, options)
    with pytest.raises(StoppedEarly) as stopped:
        mm_train.train(spec, attrs.evolve(options, stop_after=2))
    again = mm_train.train(spec, attrs.evolve(options, resume=str(stopped.value.run_dir)))
    first, second = (
        {
            str(file.relative_to(result.checkpoint)): load_file(file)
            for file in Path(result.checkpoint).rglob("*.safetensors")
        }
        for result in (once, again)
    )
    assert first.keys() == second.keys()
    for file, tensors in first.items():
        assert all(torch.equal(value, second[file][name]) for name, value in tensors.items()), file
    clipping = [tensors for file, tensors in first.items() if file.startswith("clipping/")]
    assert len(clipping) == isinstance(optim, AdamWSpec)
