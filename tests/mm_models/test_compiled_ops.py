"""What PyTorch's compiler makes of operations and of networks has the plain forms' values and gradients."""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import grad

import mm_models
from mm_config.families.tiny import TINY
from mm_models.ops import attention, gate_residual, modulate, rms_norm, rope
from mm_models.ops.choosing import Ops, choose
from mm_models.seeding import generator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs g++ on a CPU"),
]
COMPILED = Ops(
    attention=attention.sdpa,
    rms_norm=rms_norm.compiled,
    rotate=rope.compiled,
    modulate=modulate.compiled,
    gate_residual=gate_residual.compiled,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator("compiled", seed, *shape)).requires_grad_()


def cases() -> dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[Tensor, ...]]]:
    """Both forms of each operation with what has gradients."""
    table = rope.grid_table(rope.axis_table(16, 8), (2, 2, 3))
    places = torch.tensor([[0, 3, 1], [2, 2, 0]])
    x, branch, row, other = normal(2, 3, 16), normal(2, 3, 16, seed=1), normal(2, 16), normal(2, 16, seed=1)
    four, four_others = normal(4, 16), normal(4, 16, seed=1)
    return {
        "rms_norm": (
            lambda x, weight: rms_norm.compiled(x, weight, 1e-6),
            lambda x, weight: rms_norm.reference(x, weight, 1e-6),
            (x, normal(16)),
        ),
        "rope": (
            lambda x: rope.compiled(x, table),
            lambda x: rope.reference(x, table),
            (normal(2, 12, 3, 16),),
        ),
        "modulate": (
            lambda x, shift, scale: modulate.compiled(x, shift, scale, 1e-6),
            lambda x, shift, scale: modulate.reference(x, shift, scale, 1e-6),
            (x, row, other),
        ),
        "modulate by rows": (
            lambda x, shift, scale: modulate.compiled(x, shift, scale, 1e-6, places),
            lambda x, shift, scale: modulate.reference(x, shift, scale, 1e-6, places),
            (x, four, four_others),
        ),
        "gate": (gate_residual.compiled, gate_residual.reference, (x, branch, row)),
        "gate by rows": (
            lambda x, branch, gate: gate_residual.compiled(x, branch, gate, places),
            lambda x, branch, gate: gate_residual.reference(x, branch, gate, places),
            (x, branch, four),
        ),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", cases())
def test_compiled_forms_have_the_plain_ones_values_and_gradients(case: str, dtype: torch.dtype) -> None:
    compiled, reference, inputs = cases()[case]
    # Rows of modulation and norms' weights are float32 in both formats.
    inputs = tuple(
        one.detach().to(dtype if one.ndim > 2 else torch.float32).requires_grad_() for one in inputs
    )
    expected, actual = reference(*inputs), compiled(*inputs)
    assert actual.dtype == dtype
    direction = torch.randn_like(expected)
    atol, rtol = (1e-5, 1e-5) if dtype == torch.float32 else (0.03, 0.02)
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)
    for mine, other in zip(grad(actual, inputs, direction), grad(expected, inputs, direction), strict=True):
        torch.testing.assert_close(mine, other, atol=atol, rtol=rtol)


def velocity_and_gradients(network: torch.nn.Module) -> tuple[Tensor, ...]:
    draws = generator("inputs")
    latents = torch.randn(2, TINY.model.in_channels, 2, 4, 4, generator=draws)
    text = torch.randn(2, 3, TINY.model.text_dim, generator=draws)
    velocity = network(latents, torch.tensor([5.0, 700.0]), text)
    return velocity, *grad(velocity.square().sum(), list(network.parameters()))


@pytest.mark.parametrize("ops", [COMPILED, choose("cpu")], ids=["compiled forms", "fused forms"])
def test_a_network_of_compiled_forms_and_a_compiled_network_agree_with_the_plain_one(ops: Ops) -> None:
    networks = [mm_models.build(TINY.model, "cpu", ops=one) for one in (Ops(), ops)]
    for network in networks:
        mm_models.initialize(network, seed=0)
        torch.nn.init.normal_(network.get_parameter("proj_out.weight"), generator=generator("out"))
    plain, other = networks
    if ops is not COMPILED:
        for block in other.get_submodule("blocks").children():
            block.compile(fullgraph=True)
    expected, actual = velocity_and_gradients(plain), velocity_and_gradients(other)
    for mine, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4 * theirs.abs().max().item(), rtol=1e-4)
