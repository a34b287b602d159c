"""Small checkpoints that tests save, and what they hold."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import mm_models
from mm_config.specs.wan import WanTransformerSpec
from mm_models import checkpoint

STATE = {"step": 700, "stream": {"seed": 2**40}, "loss": 0.1234567890123456}


def filled(spec: WanTransformerSpec, seed: int = 0) -> nn.Module:
    network = mm_models.build(spec, "cpu")
    mm_models.initialize(network, seed)
    return network


def optimizer_of(network: nn.Module) -> dict[str, Tensor]:
    """A moment per parameter and a step count without axes, as optimizers keep them."""
    moments = {f"{name}.exp_avg": parameter.detach() * 3 for name, parameter in network.named_parameters()}
    return {**moments, "step": torch.tensor(700.0)}


def save(folder: Path, network: nn.Module) -> None:
    groups = {"model": network.state_dict(), "optimizer": optimizer_of(network)}
    checkpoint.save(folder, groups, STATE | {"step": int(folder.name.removeprefix("step-"))})


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard(network: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (2,))
    for block in network.blocks:  # type: ignore[union-attr]
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(whole(actual[name]), tensor), name


def save_sharded(rank: int, spec: WanTransformerSpec, folder: Path) -> None:
    network = shard(filled(spec))
    save(folder, network)
    assert checkpoint.verify(folder) == []
