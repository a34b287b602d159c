"""Each operation's fast form against its plain reference, and against its definition."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mm_models.ops.attention import attention
from mm_models.ops.modulation import gated_add, modulate
from mm_models.ops.rope import axis_widths, grid_table, rope_angles, rotate, rotate_complex, rotate_reference
from mm_models.seeding import generator


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator("ops", *shape), dtype=torch.float64)


def tables(grid: tuple[int, int, int], head_dim: int) -> tuple[Tensor, Tensor]:
    angles = rope_angles(head_dim, 16)
    return grid_table(angles.cos(), grid, head_dim), grid_table(angles.sin(), grid, head_dim)


@pytest.mark.parametrize("head_dim", [6, 10, 16, 48, 128])
def test_rotation_forms_agree_in_value_and_gradient(head_dim: int) -> None:
    cos, sin = tables((2, 3, 4), head_dim)
    x, direction = normal(2, 24, 3, head_dim).requires_grad_(), normal(2, 24, 3, head_dim)
    fast, plain = rotate_complex(x, cos, sin), rotate_reference(x, cos, sin)
    torch.testing.assert_close(fast, plain)
    (fast_gradient,) = torch.autograd.grad(fast, x, direction)
    (plain_gradient,) = torch.autograd.grad(plain, x, direction)
    torch.testing.assert_close(fast_gradient, plain_gradient)


@pytest.mark.parametrize("form", [rotate_reference, rotate_complex])
def test_rotation_gradients_are_numerically_right(form: Callable[..., Tensor]) -> None:
    cos, sin = tables((1, 2, 2), 10)
    assert torch.autograd.gradcheck(form, (normal(1, 4, 2, 10).requires_grad_(), cos, sin))


def test_rotated_products_depend_on_distances_alone() -> None:
    cos, sin = tables((5, 5, 5), 12)
    query, key = normal(12).expand(1, 125, 1, -1), normal(12, 1)[:, 0].expand(1, 125, 1, -1)
    rotated_query, rotated_key = (
        rotate_complex(query, cos, sin)[0, :, 0],
        rotate_complex(key, cos, sin)[0, :, 0],
    )
    products = (rotated_query @ rotated_key.T).view(5, 5, 5, 5, 5, 5)
    torch.testing.assert_close(products[:4, :3, 2:, :4, :3, 2:], products[1:, 2:, :3, 1:, 2:, :3])
    assert not torch.allclose(products[0, 0, 0, 0, 0, 0], products[0, 0, 0, 0, 0, 1])


def test_rotation_keeps_the_inputs_dtype_and_the_reserved_widths() -> None:
    assert axis_widths(128) == (44, 42, 42)
    cos, sin = (table.float() for table in tables((1, 2, 2), 16))
    assert rotate(normal(1, 4, 1, 16).bfloat16(), cos, sin).dtype == torch.bfloat16


def test_attention_is_a_softmax_over_keys() -> None:
    query, key, value = normal(2, 5, 3, 8), normal(2, 7, 3, 8), normal(2, 7, 3, 8) + 1
    weights = torch.einsum("bshd,blhd->bhsl", query, key).div(8**0.5).softmax(-1)
    expected = torch.einsum("bhsl,blhd->bshd", weights, value).flatten(2)
    torch.testing.assert_close(attention(query, key, value), expected)


def test_modulation_is_a_scaled_and_shifted_layer_norm() -> None:
    x, shift, scale = normal(2, 5, 8).float(), normal(2, 8).float(), normal(1, 8).float()
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
    expected = normed * (1 + scale[:, None]) + shift[:, None]
    torch.testing.assert_close(modulate(x, shift, scale, 1e-6), expected)
    torch.testing.assert_close(gated_add(x, normed, scale), x + scale[:, None] * normed)
    assert modulate(x.bfloat16(), shift, scale, 1e-6).dtype == torch.bfloat16
    assert gated_add(x.bfloat16(), x.bfloat16(), scale).dtype == torch.bfloat16


def test_each_token_can_take_a_row_of_its_own() -> None:
    x, branch = normal(2, 3, 8).float(), normal(2, 3, 8).float() + 1
    shift, scale = normal(4, 8).float(), normal(4, 8).float() + 1
    rows = torch.tensor([[0, 3, 3], [2, 0, 1]])
    modulated, added = modulate(x, shift, scale, 1e-6, rows), gated_add(x, branch, scale, rows)
    for sample in range(2):
        for token in range(3):
            one = slice(sample, sample + 1), slice(token, token + 1)
            row = rows[sample, token].unsqueeze(0)
            torch.testing.assert_close(modulated[one], modulate(x[one], shift[row], scale[row], 1e-6))
            torch.testing.assert_close(added[one], gated_add(x[one], branch[one], scale[row]))
