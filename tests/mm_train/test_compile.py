"""Blocks that are compiled one by one have the gradients of the blocks as they are."""

from __future__ import annotations

import shutil

import attrs
import pytest
import torch
from torch import Tensor, nn

import mm_models
from mm_config import replace
from mm_config.schema.errors import UserError
from mm_config.specs.parallel import NO_COMPILE, CompileBackend, CompileSpec, Recompute, RecomputeSpec
from mm_config.specs.train import TrainSpec
from mm_models import compile_blocks, compiled_graphs
from mm_models.ranks import joined
from mm_train import offloading
from mm_train.layout import layout_of
from mm_train.parallelize import parallelize

CPU = torch.device("cpu")
INDUCTOR = CompileSpec(enabled=True)
AOT_EAGER = replace(INDUCTOR, "backend", CompileBackend.AOT_EAGER)
EAGER = replace(INDUCTOR, "backend", CompileBackend.EAGER)
ALL = RecomputeSpec()
FULL = RecomputeSpec(mode=Recompute.FULL, offload=True)
SELECTIVE = RecomputeSpec(mode=Recompute.SELECTIVE)
OFFLOADED = RecomputeSpec(mode=Recompute.SELECTIVE, offload=True)


@pytest.fixture(autouse=True)
def small_tensors_wait_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offloading, "LEAST_BYTES", 1)


def gradients(
    small: TrainSpec, how: CompileSpec, kept: RecomputeSpec, sharded: bool, sizes: tuple[int, ...] = (4,)
) -> dict[str, Tensor]:
    """The gradients of a pass, or of one in each size."""
    torch._dynamo.reset()
    network = mm_models.build(small.model, device="cpu")
    mm_models.initialize(network, seed=1)
    nn.init.normal_(network.get_parameter("proj_out.weight"), generator=torch.Generator().manual_seed(0))
    with joined(CPU, sharded=True) as group:
        ranks = attrs.evolve(group, grouped=sharded)
        parallelize(
            network, replace(small, {"recompute": kept, "compile": how}), layout_of(small, ranks, CPU), CPU
        )
        for size in sizes:
            generator = torch.Generator().manual_seed(size)
            latents = torch.randn(2, small.model.in_channels, 2, size, size, generator=generator)
            text = torch.randn(2, 5, small.model.text_dim, generator=generator)
            network(latents, torch.tensor([900.0, 100.0]), text).square().mean().backward()
        return {name: _whole(one) for name, one in network.named_parameters()}


def _whole(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    gradient = parameter.grad
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient  # type: ignore[operator]


def require_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, one in found.items():
        atol = 1e-5 * expected[name].abs().max().item()
        torch.testing.assert_close(one, expected[name], rtol=1e-5, atol=atol)


def require_equal(small: TrainSpec, how: CompileSpec, kept: tuple[RecomputeSpec, ...], sharded: bool) -> None:
    expected = gradients(small, NO_COMPILE, ALL, sharded)
    for one in kept:
        before = compiled_graphs()
        require_close(gradients(small, how, one, sharded), expected)
        # One for all blocks.
        assert compiled_graphs() == before + 1, one


def test_gradients_are_those_of_blocks_that_are_not_compiled(small: TrainSpec) -> None:
    require_equal(small, AOT_EAGER, (OFFLOADED,), sharded=False)
    require_equal(small, EAGER, (FULL,), sharded=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs g++ on a CPU")
@pytest.mark.parametrize("sharded", [False, True], ids=["one process", "sharded"])
def test_inductors_gradients_are_those_of_blocks_that_are_not_compiled(
    small: TrainSpec, sharded: bool
) -> None:
    require_equal(small, INDUCTOR, (SELECTIVE,) if sharded else (ALL, FULL, OFFLOADED), sharded)


@pytest.mark.slow
def test_each_size_is_compiled_once_and_none_any_more_where_sizes_are_variables(small: TrainSpec) -> None:
    def graphs(how: CompileSpec, *sizes: int) -> int:
        before = compiled_graphs()
        gradients(small, how, ALL, sharded=False, sizes=sizes)
        return compiled_graphs() - before

    dynamic = replace(EAGER, "dynamic", True)
    assert graphs(EAGER, 8, 12, 16, 8, 12, 16) == 3
    assert graphs(dynamic, 8, 12, 16, 20) == graphs(dynamic, 8, 12)
    expected = gradients(small, NO_COMPILE, ALL, sharded=False, sizes=(8, 12, 16))
    require_close(gradients(small, dynamic, ALL, sharded=False, sizes=(8, 12, 16)), expected)


class Broken(nn.Module):
    """A network whose block the compiler can't take as one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Printing()])


class Printing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x + 1


def test_what_cannot_be_compiled_is_told_in_a_line() -> None:
    network = Broken()
    compile_blocks(network, EAGER)
    with pytest.raises(
        UserError, match=r"^spec\.compile: a block can't be compiled: .*fullgraph=False"
    ) as told:
        network.blocks[0](torch.zeros(1))
    assert "\n" not in str(told.value)
    broken = Broken()
    compile_blocks(broken, replace(EAGER, "fullgraph", False))
    assert broken.blocks[0](torch.zeros(1)) == 1
    with pytest.raises(
        UserError, match=r"spec\.compile\.enabled: is True, but the network has no list `blocks`"
    ):
        compile_blocks(nn.Linear(1, 1), EAGER)
