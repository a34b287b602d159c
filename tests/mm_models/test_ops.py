"""Each operation's plain form against its definition."""

import pytest
import torch
from torch import Tensor

from mm_models.ops import attention, gate_residual, modulate, rms_norm, rope
from mm_models.seeding import generator


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator("ops", *shape), dtype=torch.float64)


def tables(grid: tuple[int, int, int], head_dim: int) -> rope.Rope:
    return rope.grid_table(rope.axis_table(head_dim, 16), grid)


@pytest.mark.parametrize("head_dim", [6, 10, 16, 48, 128])
def test_rotation_is_a_product_of_complex_numbers(head_dim: int) -> None:
    cos, sin = tables((2, 3, 4), head_dim)
    x = normal(2, 24, 3, head_dim)
    turns = torch.complex(cos[..., ::2].double(), sin[..., ::2].double())
    expected = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turns).flatten(-2)
    torch.testing.assert_close(rope.reference(x, (cos, sin)), expected)


def test_a_token_turns_by_its_place_times_the_axis_s_frequencies() -> None:
    cos, sin = tables((2, 3, 4), 12)
    place = (1, 2, 3)
    token = (place[0] * 3 + place[1]) * 4 + place[2]
    widths = rope.axis_widths(12)
    angles = [
        position * 10_000.0 ** -(pair / width)
        for position, width in zip(place, widths, strict=True)
        for pair in range(0, width, 2)
    ]
    expected = torch.tensor(angles).repeat_interleave(2)
    torch.testing.assert_close(cos[token, 0], expected.cos())
    torch.testing.assert_close(sin[token, 0], expected.sin())


def test_rotation_gradients_are_numerically_right() -> None:
    turn = tables((1, 2, 2), 10)
    assert torch.autograd.gradcheck(lambda x: rope.reference(x, turn), normal(1, 4, 2, 10).requires_grad_())


def test_rotated_products_depend_on_distances_alone() -> None:
    turn = tables((5, 5, 5), 12)
    query, key = normal(12).expand(1, 125, 1, -1), normal(12, 1)[:, 0].expand(1, 125, 1, -1)
    rotated_query, rotated_key = (rope.reference(x, turn)[0, :, 0] for x in (query, key))
    products = (rotated_query @ rotated_key.T).view(5, 5, 5, 5, 5, 5)
    torch.testing.assert_close(
        products[:4, :3, 2:, :4, :3, 2:], products[1:, 2:, :3, 1:, 2:, :3], atol=1e-6, rtol=1e-6
    )
    assert not torch.allclose(products[0, 0, 0, 0, 0, 0], products[0, 0, 0, 0, 0, 1])


def test_rotation_keeps_the_inputs_dtype_and_the_reserved_widths() -> None:
    assert rope.axis_widths(128) == (44, 42, 42)
    assert rope.reference(normal(1, 4, 1, 16).bfloat16(), tables((1, 2, 2), 16)).dtype == torch.bfloat16


def test_tables_on_meta_have_the_shapes_of_real_ones() -> None:
    for real, empty in zip(rope.axis_table(16, 32), rope.axis_table(16, 32, "meta"), strict=True):
        assert (real.shape, real.dtype, empty.is_meta) == (empty.shape, empty.dtype, True)


def test_attention_is_a_softmax_over_keys() -> None:
    query, key, value = normal(2, 5, 3, 8), normal(2, 7, 3, 8), normal(2, 7, 3, 8) + 1
    weights = torch.einsum("bshd,blhd->bhsl", query, key).div(8**0.5).softmax(-1)
    expected = torch.einsum("bhsl,blhd->bshd", weights, value)
    torch.testing.assert_close(attention.reference(query, key, value), expected)
    torch.testing.assert_close(attention.sdpa(query, key, value), expected)


@pytest.mark.parametrize("form", [attention.reference, attention.sdpa])
def test_keys_that_a_mask_leaves_out_have_no_say(form: attention.Form) -> None:
    query, key, value = normal(2, 5, 3, 8), normal(2, 7, 3, 8), normal(2, 7, 3, 8) + 1
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[..., 4:] = False
    torch.testing.assert_close(
        form(query, key, value, mask), attention.reference(query, key[:, :4], value[:, :4])
    )


@pytest.mark.parametrize("form", [attention.reference, attention.sdpa])
def test_an_additive_mask_is_refused(form: attention.Form) -> None:
    query = normal(1, 2, 1, 4)
    with pytest.raises(TypeError, match="of bools"):
        form(query, query, query, torch.zeros(1, 1, 2, 2, dtype=torch.float64))


def test_attention_s_forms_have_the_same_gradients() -> None:
    query, key, value = (normal(2, 4, 2, 8).add(shift).requires_grad_() for shift in range(3))
    inputs = query, key, value
    mask = torch.tensor([True, False, True, True]).view(1, 1, 1, 4)
    direction = normal(2, 4, 2, 8) - 1
    expected = torch.autograd.grad(attention.reference(query, key, value, mask), inputs, direction)
    actual = torch.autograd.grad(attention.sdpa(query, key, value, mask), inputs, direction)
    torch.testing.assert_close(actual, expected)
    assert torch.autograd.gradcheck(lambda q, k, v: attention.reference(q, k, v, mask), inputs)


def test_the_norm_divides_by_the_root_of_the_mean_square() -> None:
    x, weight = normal(2, 5, 8).float(), normal(8).float() + 1
    expected = torch.nn.functional.rms_norm(x, (8,), weight, 1e-6)
    torch.testing.assert_close(rms_norm.reference(x, weight, 1e-6), expected)
    assert rms_norm.reference(x.bfloat16(), weight, 1e-6).dtype == torch.bfloat16


def test_modulation_is_a_scaled_and_shifted_layer_norm() -> None:
    x, shift, scale = normal(2, 5, 8).float(), normal(2, 8).float(), normal(1, 8).float()
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
    expected = normed * (1 + scale[:, None]) + shift[:, None]
    torch.testing.assert_close(modulate.reference(x, shift, scale, 1e-6), expected)
    torch.testing.assert_close(gate_residual.reference(x, normed, scale), x + scale[:, None] * normed)
    assert modulate.reference(x.bfloat16(), shift, scale, 1e-6).dtype == torch.bfloat16
    assert gate_residual.reference(x.bfloat16(), x.bfloat16(), scale).dtype == torch.bfloat16


def test_each_token_can_take_a_row_of_its_own() -> None:
    x, branch = normal(2, 3, 8).float(), normal(2, 3, 8).float() + 1
    shift, scale = normal(4, 8).float(), normal(4, 8).float() + 1
    rows = torch.tensor([[0, 3, 3], [2, 0, 1]])
    modulated = modulate.reference(x, shift, scale, 1e-6, rows)
    added = gate_residual.reference(x, branch, scale, rows)
    for sample in range(2):
        for token in range(3):
            one = slice(sample, sample + 1), slice(token, token + 1)
            row = rows[sample, token].unsqueeze(0)
            expected = modulate.reference(x[one], shift[row], scale[row], 1e-6)
            torch.testing.assert_close(modulated[one], expected)
            torch.testing.assert_close(added[one], gate_residual.reference(x[one], branch[one], scale[row]))
