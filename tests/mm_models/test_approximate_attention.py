"""Attention that is not exact: against the kernels' own numbers, a second plain form, and exact attention."""

import math
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mm_config.schema.errors import UserError
from mm_config.specs.serving import ApproximateAttention
from mm_models.ops import approximate_attention as approximate
from mm_models.ops.attention import reference
from mm_models.ops.choosing import REFERENCE, approximated

SAGE, FLASH_4 = ApproximateAttention.SAGE, ApproximateAttention.FLASH_4


def wave(tokens: int, pace: float) -> Tensor:
    """`[1, tokens, 2, 64]`, the same everywhere."""
    values = (torch.arange(tokens * 128, dtype=torch.float64) * pace).sin() * 2
    return values.float().view(1, tokens, 2, 64)


def random(tokens: int, seed: int) -> Tensor:
    return torch.randn(2, tokens, 3, 32, generator=torch.Generator().manual_seed(seed))


def sage_by_loops(query_SD: Tensor, key_LD: Tensor, value_LD: Tensor) -> Tensor:
    """One head of SageAttention, row by row in float64, with the softmax of a whole row at once."""

    def rounded(x: Tensor, tokens: int) -> Tensor:
        blocks = [x[begin : begin + tokens] for begin in range(0, len(x), tokens)]
        steps = [float(block.abs().max()) / 127 for block in blocks]
        return torch.cat([(block / step).round() * step for block, step in zip(blocks, steps, strict=True)])

    query_SD, key_LD, value_LD = query_SD.double(), key_LD.double(), value_LD.double()
    key_LD = rounded(key_LD - key_LD.sum(0) / len(key_LD), 64)
    rows: list[Tensor] = []
    for query_D in rounded(query_SD / math.sqrt(query_SD.shape[1]), 128):
        weights = [math.exp(float(query_D @ key_D)) for key_D in key_LD]
        rows.append(sum(w * v for w, v in zip(weights, value_LD, strict=True)) / sum(weights))  # type: ignore[arg-type]
    return torch.stack(rows)


def test_sage_gives_what_the_packages_kernels_give() -> None:
    # sageattention 1.0.6, `per_block_int8` and `attn_qk_int8_per_block`, in Triton's interpreter.
    kernels = {
        (0, 0, 0): -0.03896,
        (17, 1, 5): -0.03858,
        (63, 0, 63): -0.01208,
        (64, 1, 31): -0.00833,
        (127, 0, 9): 0.03939,
        (128, 1, 40): -0.01270,
        (150, 0, 22): -0.01273,
        (191, 1, 63): -0.01750,
    }
    inputs = wave(192, 0.37), wave(128, 0.53) + wave(1, 0.11), wave(128, 0.29)
    found, exact = approximate.sage_reference(*inputs)[0], reference(*inputs)[0]
    # The kernels sum the products of a block in float16.
    assert max(abs(float(found[place]) - value) for place, value in kernels.items()) < 2e-5
    assert max(abs(float(exact[place]) - value) for place, value in kernels.items()) > 3e-3


@pytest.mark.parametrize(("queries", "keys"), [(200, 100), (128, 64), (1, 7)])
def test_sage_is_that_of_plain_loops_with_any_number_of_tokens(queries: int, keys: int) -> None:
    inputs = random(queries, 0), 2 * random(keys, 1) + 3, random(keys, 2)
    found = approximate.sage_reference(*inputs)
    expected = torch.stack([sage_by_loops(*(x[1, :, head] for x in inputs)) for head in range(3)], 1)
    # Weights and values are float16: 2^-11 of each.
    torch.testing.assert_close(found[1].double(), expected, rtol=2e-3, atol=2e-3)
    if keys == 100:
        assert (found - reference(*inputs)).abs().max() > 5e-3


def test_sage_loses_what_all_keys_have_in_common() -> None:
    query, key, value = random(40, 0), random(70, 1), random(70, 2)
    found, moved = (approximate.sage_reference(query, one, value) for one in (key, key + 100))
    torch.testing.assert_close(moved, found, rtol=0, atol=2e-3)
    assert torch.equal(approximate.sage_reference(query, 0 * key, value).isfinite().all(), torch.tensor(True))


def test_flash_4s_exponentials_are_as_near_as_published() -> None:
    x = torch.linspace(-126, 0, 100_001)
    error = (approximate.polynomial_exp2(x).double() / torch.exp2(x.double()) - 1).abs().max()
    assert 8e-5 < error < 9e-5
    whole = torch.arange(-126.0, 1.0)
    assert torch.equal(approximate.polynomial_exp2(whole), torch.exp2(whole))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flash_4_is_near_exact_attention(dtype: torch.dtype) -> None:
    inputs = [random(tokens, seed).to(dtype) for tokens, seed in ((30, 0), (50, 1), (50, 2))]
    found, exact = approximate.flash_4_reference(*inputs), reference(*(x.float() for x in inputs))
    assert found.dtype is dtype
    apart = (found.float() - exact).abs().max()
    assert 1e-6 < apart < (1e-3 if dtype is torch.float32 else 2e-2)


def test_none_takes_a_mask() -> None:
    x = random(4, 0)
    for form in (approximate.sage_reference, approximate.flash_4_reference):
        with pytest.raises(TypeError, match="takes no mask"):
            form(x, x, x, torch.ones(4, 4, dtype=torch.bool))


def test_a_cpu_has_the_plain_forms() -> None:
    assert approximated(REFERENCE, "cpu", None, torch.float32) is REFERENCE
    for wanted, form in ((SAGE, approximate.sage_reference), (FLASH_4, approximate.flash_4_reference)):
        ops = approximated(REFERENCE, "cpu", wanted, torch.float32)
        assert (ops.attention, ops.self_attention, ops.rotate) == (form, form, REFERENCE.rotate)


@pytest.mark.parametrize(
    ("kind", "wanted", "needs"),
    [
        ("npu", SAGE, "npu in bfloat16 here; it needs sageattention 2"),
        (
            "cuda",
            SAGE,
            "cuda in bfloat16 here; it needs sageattention 2 (built from https://github.com/thu-ml",
        ),
        (
            "cuda",
            FLASH_4,
            "cuda in bfloat16 here; it needs FlashAttention 4 (pip install --pre flash-att",
        ),
    ],
)
def test_what_is_not_there_is_refused_with_what_it_needs(
    kind: str, wanted: ApproximateAttention, needs: str
) -> None:
    with pytest.raises(UserError) as refused:
        approximated(REFERENCE, kind, wanted, torch.bfloat16)
    message = f"spec.approximate_attention: is {wanted.value}, which is not available on {needs}"
    assert str(refused.value).startswith(message)


def test_kernels_are_called_with_tokens_before_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[Tensor, ...]] = []

    def exact(*inputs: Tensor, tensor_layout: str = "NHD") -> Tensor:
        assert tensor_layout == "NHD"
        called.append(inputs)
        return reference(*inputs)

    monkeypatch.setitem(sys.modules, approximate.SAGE, SimpleNamespace(sageattn=exact))  # type: ignore[arg-type]
    flash = SimpleNamespace(flash_attn_func=lambda *inputs: (exact(*inputs), None))
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, approximate.FLASH_4, flash)  # type: ignore[arg-type]
    assert import_module(approximate.FLASH_4) is flash
    inputs = random(30, 0), random(50, 1), random(50, 2)
    for form in (approximate.sage, approximate.flash_4):
        assert torch.equal(form(*inputs), reference(*inputs))
    assert called == [inputs, inputs]
