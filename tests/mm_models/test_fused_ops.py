"""Each operation's fused form has the values and gradients of the plain one, and keeps little."""

from collections.abc import Callable
from typing import TypeGuard

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad, gradcheck

from mm_models.ops import chunks, gate_residual, modulate, rms_norm, rope
from mm_models.ops.gelu_linear import gelu_linear
from mm_models.seeding import generator

SHAPES = [(1, 9, 8), (2, 7, 6), (3, 1, 10), (2, 5, 4)]
FORMATS = {torch.float64: 1e-10, torch.float32: 1e-5}
Arguments = tuple[Tensor | float | None, ...]
Form = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def many_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few tokens a step and no run too short, so that small tensors go the way of large ones."""
    monkeypatch.setattr(chunks, "VALUES_PER_THREAD", 40 // torch.get_num_threads())
    monkeypatch.setattr(chunks, "LEAST_VALUES", 1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator("fused", seed, *shape), dtype=torch.float64)


def rows(batch: int, tokens: int) -> Tensor:
    return torch.randint(0, 4, (batch, tokens), generator=generator("rows"))


def tables(tokens: int, head_dim: int) -> rope.Rope:
    angles = normal(tokens, 1, head_dim // 2).repeat_interleave(2, -1)
    return angles.cos().float(), angles.sin().float()


def cases(shape: tuple[int, int, int]) -> dict[str, tuple[Form, Form, Arguments]]:
    """Both forms of each operation with its arguments."""
    batch, tokens, width = shape
    x, branch = normal(*shape), normal(*shape, seed=1)
    row, other = normal(batch, width), normal(batch, width, seed=1)
    four, four_others = normal(4, width), normal(4, width, seed=1)
    table = tables(tokens, width)
    heads = normal(batch, 3, tokens, width).transpose(1, 2)
    places = rows(batch, tokens)
    return {
        "rms_norm": (rms_norm.fused, rms_norm.reference, (x, row[0], 1e-6)),
        "rope": (lambda x: rope.fused(x, table), lambda x: rope.reference(x, table), (heads,)),
        "modulate": (modulate.fused, modulate.reference, (x, row, other, 1e-6, None)),
        "modulate by rows": (modulate.fused, modulate.reference, (x, four, four_others, 1e-6, places)),
        "gate": (gate_residual.fused, gate_residual.reference, (x, branch, row, None)),
        "gate by rows": (gate_residual.fused, gate_residual.reference, (x, branch, four, places)),
    }


def inputs_of(arguments: Arguments, dtype: torch.dtype) -> Arguments:
    """The same arguments in a format, the floating ones waiting for gradients."""
    return tuple(one.to(dtype).detach().requires_grad_() if floating(one) else one for one in arguments)


def floating(one: Tensor | float | None) -> TypeGuard[Tensor]:
    return isinstance(one, Tensor) and one.is_floating_point()


def differentiable(arguments: Arguments) -> list[Tensor]:
    return [one for one in arguments if isinstance(one, Tensor) and one.requires_grad]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", cases(SHAPES[0]))
def test_fused_forms_have_the_plain_ones_values_and_gradients(
    case: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    fused, reference, arguments = cases(shape)[case]
    inputs = inputs_of(arguments, dtype)
    actual, expected = fused(*inputs), reference(*inputs)
    tolerance = FORMATS[dtype]
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    # A gradient whose heads and tokens are swapped in memory, as attention hands it on.
    direction = normal(*expected.shape, seed=2).to(dtype).transpose(1, 2).contiguous().transpose(1, 2)
    gradients = grad(actual, differentiable(inputs), direction)
    torch.testing.assert_close(
        gradients, grad(expected, differentiable(inputs), direction), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("case", cases(SHAPES[0]))
def test_fused_gradients_are_numerically_right(case: str) -> None:
    fused, _, arguments = cases((2, 3, 4))[case]
    inputs = inputs_of(arguments, torch.float64)
    wanted = differentiable(inputs)
    assert gradcheck(lambda *_: fused(*inputs), wanted)


@pytest.mark.parametrize("case", cases(SHAPES[0]))
def test_fused_bfloat16_errs_no_more_than_the_plain_form(case: str) -> None:
    shape = (2, 40, 64)
    fused, reference, arguments = cases(shape)[case]
    # Rows of modulation stay float32; the stream is bfloat16.
    exact = inputs_of(tuple(_rounded(one, shape) for one in arguments), torch.float64)
    narrow = tuple(
        one.detach().to(torch.bfloat16 if one.ndim > 2 else torch.float32).requires_grad_()
        if isinstance(one, Tensor) and one.requires_grad
        else one
        for one in exact
    )
    truth, direction = reference(*exact), normal(*reference(*exact).shape, seed=2).bfloat16()
    found = {form: form(*narrow) for form in (fused, reference)}
    assert found[fused].dtype == torch.bfloat16
    true_gradients = grad(truth, differentiable(exact), direction.double())
    for index, true in enumerate((truth, *true_gradients)):
        errors = {}
        for form, value in found.items():
            values = (value, *grad(value, differentiable(narrow), direction, retain_graph=True))
            assert index == 0 or values[index].dtype == differentiable(narrow)[index - 1].dtype
            errors[form] = (values[index].double() - true).norm().item()
        assert errors[fused] <= 1.02 * errors[reference] + 1e-6 * true.norm().item(), index


def test_a_wide_stream_is_modulated_to_a_narrow_format_alike() -> None:
    x, shift, scale = normal(2, 40, 64).float(), normal(2, 64).float(), normal(2, 64, seed=1).float()
    direction = normal(2, 40, 64, seed=2).bfloat16()
    found: list[tuple[Tensor, ...]] = []
    for form in (modulate.fused, modulate.reference):
        inputs = [one.clone().requires_grad_() for one in (x, shift, scale)]
        value = form(inputs[0], inputs[1], inputs[2], 1e-6, None, torch.bfloat16)
        assert value.dtype == torch.bfloat16
        gradients = grad(value, inputs, direction)
        assert all(one.dtype == torch.float32 for one in gradients)
        found.append((value.float(), *gradients))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=2**-7, atol=1e-6)
    torch.testing.assert_close(found[0][1:], found[1][1:], rtol=1e-5, atol=1e-4)


def _rounded(one: Tensor | float | None, shape: tuple[int, int, int]) -> Tensor | float | None:
    if not floating(one):
        return one
    return (one.bfloat16() if one.ndim > 2 else one.float()).double()


@pytest.mark.parametrize("case", cases(SHAPES[0]))
def test_fused_forms_keep_at_most_one_tensor_of_the_stream(case: str) -> None:
    fused, _, arguments = cases((2, 16, 64))[case]
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel() * (tensor.shape[-1] == 64)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        fused(*inputs_of(arguments, torch.float32))
    streams = [size for size in kept.values() if size >= 2 * 16 * 64]
    assert len(streams) == (0 if case == "rope" else 1)


def test_a_second_derivative_is_refused() -> None:
    x = normal(1, 2, 4).requires_grad_()
    (first,) = grad(rms_norm.fused(x, normal(4), 1e-6).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_samples_too_small_for_steps_take_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LEAST_VALUES", 2**14)
    x, row = normal(2, 3, 8).requires_grad_(), normal(2, 8)
    assert "Fused" not in type(modulate.fused(x, row, row, 1e-6).grad_fn).__name__
    large = normal(1, 2**12, 8).requires_grad_()
    assert "Fused" in type(modulate.fused(large, row[:1], row[:1], 1e-6).grad_fn).__name__


def test_runs_are_every_token_once_with_its_row() -> None:
    places = rows(3, 11)
    found = chunks.row_chunks(normal(3, 11, 4), places)
    assert found is not None
    spelt = [row for row, part in found for _ in range(part.stop - part.start)]
    assert spelt == places.flatten().tolist()
    assert [part.start for _, part in found] == [0, *(part.stop for _, part in found[:-1])]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [(), ("weight",), ("weight", "bias")])
def test_a_layer_after_gelu_is_both_modules_and_keeps_the_input_alone(
    bias: bool, frozen: tuple[str, ...]
) -> None:
    layer, activation = nn.Linear(6, 5, bias=bias, dtype=torch.float64), nn.GELU("tanh")
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name not in frozen)
    hidden = normal(2, 3, 6).requires_grad_()
    wanted = [hidden, *(one for one in layer.parameters() if one.requires_grad)]
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        actual = gelu_linear(hidden, layer)
    assert set(kept) == {hidden.data_ptr(), layer.weight.data_ptr()}
    expected = layer(activation(hidden))
    torch.testing.assert_close(actual, expected)
    direction = normal(2, 3, 5)
    torch.testing.assert_close(grad(actual, wanted, direction), grad(expected, wanted, direction))


def test_a_hooked_layer_after_gelu_is_called_with_the_activation() -> None:
    layer, activation = nn.Linear(6, 5, dtype=torch.float64), nn.GELU("tanh")
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda _layer, inputs, output: seen.append(inputs[0]) or output + 1)
    hidden = normal(2, 3, 6)
    out = gelu_linear(hidden, layer)
    torch.testing.assert_close(seen[0], activation(hidden))
    torch.testing.assert_close(out, nn.functional.linear(seen[0], layer.weight, layer.bias) + 1)
