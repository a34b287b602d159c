"""Activation checkpointing changes memory, not numbers."""

import attrs
import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

import mm_models
from mm_config import replace
from mm_config.schema.errors import UserError
from mm_config.specs.dtype import Dtype
from mm_config.specs.parallel import Recompute, RecomputeSpec
from mm_config.specs.train import PrecisionSpec, TrainSpec
from mm_train.parallelize import parallelize
from mm_train.ranks import joined
from mm_train.recompute import recompute

FULL = RecomputeSpec(mode=Recompute.FULL)
CPU = torch.device("cpu")


def gradients(small: TrainSpec, spec: RecomputeSpec, sharded: bool) -> tuple[dict[str, torch.Tensor], int]:
    """Each parameter's gradient, and how many block passes were computed."""
    network = mm_models.build(small.model, device="cpu", dtype=torch.float32)
    mm_models.initialize(network, seed=1)
    nn.init.normal_(network.get_parameter("proj_out.weight"), generator=torch.Generator().manual_seed(0))
    names = [name for name, _ in network.named_parameters()]
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    for block in network.get_submodule("blocks").children():
        block.get_submodule("ffn").register_forward_hook(count)
    with joined(PrecisionSpec(compute=Dtype.BFLOAT16), CPU) as group:
        ranks = attrs.evolve(group, grouped=sharded)
        parallelize(network, replace(small, "recompute", spec), ranks, CPU)
        assert isinstance(network, FSDPModule) == sharded
        assert [name for name, _ in network.named_parameters()] == names
        generator = torch.Generator().manual_seed(2)
        latents = torch.randn(2, small.model.in_channels, 2, 4, 4, generator=generator)
        text = torch.randn(2, 8, small.model.text_dim, generator=generator)
        network(latents, torch.tensor([900.0, 100.0]), text).square().mean().backward()
        found = {name: torch.as_tensor(_whole(parameter)) for name, parameter in network.named_parameters()}
    return found, passes


def _whole(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    gradient = parameter.grad
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient  # type: ignore[operator]


@pytest.mark.parametrize("sharded", [False, True])
def test_gradients_are_those_of_a_network_that_keeps_everything(small: TrainSpec, sharded: bool) -> None:
    kept, passes = gradients(small, RecomputeSpec(), sharded)
    again, passes_again = gradients(small, FULL, sharded)
    assert (passes, passes_again) == (small.model.num_layers, 2 * small.model.num_layers)
    assert kept.keys() == again.keys()
    for name, gradient in kept.items():
        assert torch.equal(gradient, again[name]), name
        assert gradient.any(), name


def test_only_the_matched_modules_are_computed_again(small: TrainSpec) -> None:
    _, passes = gradients(small, replace(FULL, "modules", ("blocks.0",)), sharded=False)
    assert passes == small.model.num_layers + 1


def test_a_list_of_modules_is_refused(small: TrainSpec) -> None:
    network = mm_models.build(small.model, device="meta")
    with pytest.raises(UserError, match=r"spec\.recompute\.modules: 'blocks' is a list"):
        recompute(network, replace(FULL, "modules", ("blocks",)))
