"""Ranks that share a sample's tokens have the outputs, losses and gradients of one process."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import mm_models
from mm_config.schema.errors import UserError
from mm_config.specs.lora import LoraSpec
from mm_config.specs.serving import ApproximateAttention
from mm_config.specs.wan import WanTransformerSpec
from mm_models.lora import attach_trainable
from mm_models.ops.choosing import approximated, choose
from mm_models.parallel import Context, over_ranks, share_tokens
from tests.forked_ranks import RunRanks
from tests.mm_models.shared_tokens import context_of, found_by, inputs_of, network_of

CPU = torch.device("cpu")
DEGREES = [
    {"ulysses": 4},
    {"ring": 4},
    {"ring": 2, "ulysses": 2},
    pytest.param({"ulysses": 2}, marks=pytest.mark.slow),
    pytest.param({"ring": 2}, marks=pytest.mark.slow),
]
Found = tuple[Tensor, dict[str, Tensor]]
Case = tuple[WanTransformerSpec, list[Tensor], Found]


@pytest.fixture
def spec(tiny: WanTransformerSpec) -> WanTransformerSpec:
    """Four ranks can share its heads."""
    return attrs.evolve(tiny, num_attention_heads=4, hidden_size=48)


def _equal_to_one_process(rank: int, degrees: dict[str, int], cases: list[Case]) -> None:
    context, ops = context_of(**degrees), choose("cpu")
    for spec, inputs, expected in cases:
        network = network_of(spec, over_ranks(ops, context))
        share_tokens(network, context)
        _require_equal(found_by(network, inputs), expected)


def _require_equal(found: Found, expected: Found, most: float = 1e-5) -> None:
    """The loss of each rank, and the mean of its gradients over ranks, as FSDP2 takes it."""
    torch.testing.assert_close(found[0], expected[0], rtol=most, atol=0)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in found[1].items():
        dist.all_reduce(gradient)
        error = (gradient / dist.get_world_size() - expected[1][name]).norm() / expected[1][name].norm()
        assert error < most, f"{name}: {error:.1e}"


@pytest.mark.parametrize("degrees", DEGREES, ids=str)
def test_losses_and_gradients_are_those_of_one_process(
    run_ranks: RunRanks, degrees: dict[str, int], spec: WanTransformerSpec
) -> None:
    """Also where the tokens do not divide: of five on four ranks, the last rank has none."""
    image = attrs.evolve(spec, image_dim=16)
    cases = [
        (spec, inputs_of(spec, (2, 2, 4), "sample")),
        (spec, inputs_of(spec, (1, 3, 5), "token")),
        (spec, inputs_of(spec, (7, 1, 1), "frame")),
        (spec, inputs_of(spec, (1, 1, 5), "sample", text_tokens=5)),
        (image, inputs_of(image, (3, 1, 3), "frame")),
    ]
    known = [(spec, inputs, found_by(network_of(spec, choose("cpu")), inputs)) for spec, inputs in cases]
    run_ranks(_equal_to_one_process, degrees, known, ranks=math.prod(degrees.values()))


def _adapted(rank: int, spec: WanTransformerSpec, inputs: list[Tensor]) -> None:
    """Both networks drop the same values of the samples, whoever has them."""
    context, ops = context_of(ulysses=2), choose("cpu")
    found: list[Found] = []
    for shared in (False, True):
        network = network_of(spec, over_ranks(ops, context if shared else None))
        attached = attach_trainable(
            network, LoraSpec(rank=2, alpha=2.0, dropout=0.3, targets=("blocks.*.attn?.to_?",)), torch.float32
        )
        generator = torch.Generator().manual_seed(3)
        for name, one in network.named_parameters():
            if "lora" in name:
                nn.init.normal_(one, generator=generator)
        if shared:
            share_tokens(network, context)
        assert attached.dropout is not None
        attached.dropout.begin(seed=1, step=2, positions=(4, 0), device=CPU)
        found.append(found_by(network.train(), inputs))
    _require_equal(found[1], found[0])


def test_adapters_drop_what_they_drop_in_one_process(run_ranks: RunRanks, spec: WanTransformerSpec) -> None:
    """Of five tokens each rank has three, and so many has the caption."""
    run_ranks(_adapted, spec, inputs_of(spec, (1, 1, 5), "sample", text_tokens=3))


def _computed_again(rank: int, spec: WanTransformerSpec, cases: list[list[Tensor]]) -> None:
    context, ops = context_of(ring=2), choose("cpu")
    alone, network = network_of(spec, ops), network_of(spec, over_ranks(ops, context))
    share_tokens(network, context)
    for block in network.get_submodule("blocks").children():
        block.forward = _repeating(block.forward)
    sums: list[dict[str, Tensor]] = []
    for one in (alone, network):
        sum(one(*inputs).square().mean() for inputs in cases).backward()  # type: ignore[union-attr]
        sums.append({name: each.grad for name, each in one.named_parameters() if each.grad is not None})
    zero = torch.ones(())
    _require_equal((zero, sums[1]), (zero, sums[0]))


def _repeating(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *inputs, **named: checkpoint(forward, *inputs, use_reentrant=False, **named)


def test_a_pass_that_is_computed_again_knows_its_tokens_whatever_came_between(
    run_ranks: RunRanks, spec: WanTransformerSpec
) -> None:
    """Seven and eight tokens are four on each rank."""
    cases = [inputs_of(spec, grid, "sample") for grid in ((1, 1, 7), (1, 1, 8))]
    run_ranks(_computed_again, spec, cases)


def _generated(
    rank: int,
    spec: WanTransformerSpec,
    inputs: list[Tensor],
    degrees: dict[str, int],
    approximate: ApproximateAttention | None,
) -> None:
    context = context_of(**degrees)
    ops = approximated(choose("cpu"), "cpu", approximate, torch.float32)
    alone, network = network_of(spec, ops), network_of(spec, over_ranks(ops, context))
    share_tokens(network, context)
    for how in (torch.inference_mode, torch.no_grad):
        with how():
            torch.testing.assert_close(network(*inputs), alone(*inputs), rtol=1e-4, atol=1e-6)


def test_generation_without_gradients_has_the_same_velocity(
    run_ranks: RunRanks, spec: WanTransformerSpec
) -> None:
    run_ranks(_generated, spec, inputs_of(spec, (1, 3, 3), "token"), {"ring": 2, "ulysses": 2}, None, ranks=4)


def test_attention_that_is_not_exact_row_by_row_is_that_of_one_process(
    run_ranks: RunRanks, spec: WanTransformerSpec
) -> None:
    inputs = inputs_of(spec, (1, 3, 3), "token")
    run_ranks(_generated, spec, inputs, {"ulysses": 2}, ApproximateAttention.FLASH_4, ranks=2)


class Keyed(nn.Module):
    """Another family: its blocks take by name, and along another axis, what goes by token."""

    by_token = {"places": 1}  # noqa: RUF012

    def __init__(self, ops: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([KeyedBlock(ops) for _ in range(2)])

    def forward(self, x_BSD: Tensor) -> Tensor:
        places = torch.linspace(0, 1, x_BSD.shape[1]).view(1, -1, 1)
        for block in self.blocks:
            x_BSD = block(x_BSD, scale=2.0, places=places)
        return x_BSD


class KeyedBlock(nn.Module):
    def __init__(self, ops: Any) -> None:
        super().__init__()
        self.ops, self.linear = ops, nn.Linear(8, 24)

    def forward(self, stream: Tensor, *, places: Tensor, scale: float) -> Tensor:
        query, key, value = (self.linear(stream + places) * scale).unflatten(2, (3, 2, 4)).unbind(2)
        return stream + self.ops.self_attention(query, key, value).flatten(2)


def _keyed(rank: int, x_BSD: Tensor) -> None:
    context, ops = context_of(ulysses=2), choose("cpu")
    torch.manual_seed(0)
    alone = Keyed(ops)
    network = Keyed(over_ranks(ops, context))
    network.load_state_dict(alone.state_dict())
    share_tokens(network, context)
    _require_equal(found_by(network, [x_BSD]), found_by(alone, [x_BSD]))


def test_another_family_says_what_goes_by_token(run_ranks: RunRanks) -> None:
    run_ranks(_keyed, torch.randn(2, 5, 8))


def test_a_network_that_does_not_say_what_goes_by_token_is_refused(tiny: WanTransformerSpec) -> None:
    network = mm_models.build(tiny)
    network.by_token = None  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"^spec\.parallel: the network has no attribute `by_token`: "):
        share_tokens(network, Context(None, None))
