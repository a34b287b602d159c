"""Mistakes planted in the forms for Ascend: each is caught by the tests that the right form passes."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

from mm_models.ops import attention, rms_norm, rope
from tests.npu_schema import agreement
from tests.npu_schema.agreement import Form


def planted(module: ModuleType, right: str, wrong: str) -> Form:
    """The form `npu` of a module with a piece of its source replaced."""
    source = inspect.getsource(module.npu)
    assert source.count(right) == 1, f"{right!r} stands {source.count(right)} times in {module.__name__}.npu"
    names = dict(vars(module))
    exec(source.replace(right, wrong), names)
    return names["npu"]


class Mistake(NamedTuple):
    """A piece of a form's source, what is planted instead, and the failure that shows it."""

    module: ModuleType
    right: str
    wrong: str
    error: type[Exception]
    message: str


MISTAKES = {
    "a wrong keyword": Mistake(
        attention, "atten_mask=", "attn_mask=", RuntimeError, "keyword argument 'attn_mask'"
    ),
    "a keyword of the operator's second version": Mistake(
        attention, "=mode", "=mode, pre_tokens=4", RuntimeError, "keyword argument 'pre_tokens'"
    ),
    "an argument too many": Mistake(rms_norm, "eps)[", "eps, 0)[", RuntimeError, "at most 3 argument"),
    "an operator that does not exist": Mistake(rope, "rotary_mul", "rotary", AttributeError, "npu_rotary"),
    "an operator without a kernel": Mistake(
        rms_norm, "npu_rms_norm(x, wide_enough, eps)[0]", "npu_silu(x)", NotImplementedError, "npu::npu_silu"
    ),
    "a mask with the wrong sense": Mistake(attention, "~mask.", "mask.", AssertionError, "not close"),
    "a mask that broadcasts over queries": Mistake(
        attention, ".expand(samples, -1, tokens, key_BLHD.shape[1])", "", ValueError, "is none of"
    ),
    "an additive mask": Mistake(attention, "~mask.", "-1e9 * ~mask.", TypeError, "bools or uint8"),
    "a layout swap": Mistake(attention, '"BSND"', '"BNSD"', ValueError, "is not BNSD of 4 heads"),
    "a layout without heads": Mistake(attention, '"BSND"', '"BSH"', ValueError, "is not BSH of 4 heads"),
    "a scale left out": Mistake(attention, "scale=1 / math.sqrt(width),", "", AssertionError, "not close"),
    "a scale upside down": Mistake(attention, "1 / math.sqrt", "math.sqrt", AssertionError, "not close"),
    "attention's statistics for its output": Mistake(attention, ")[0]", ")[1]", AssertionError, "not close"),
    "an epsilon left out": Mistake(rms_norm, ", eps)[", ")[", AssertionError, "not close"),
    "the norm's statistics for its output": Mistake(rms_norm, "[0]", "[1]", AssertionError, "another shape"),
    "sines for cosines": Mistake(rope, "cos, sin = (", "sin, cos = (", AssertionError, "not close"),
    "pairs half a head apart": Mistake(rope, '"interleave"', '"half"', AssertionError, "not close"),
    "more samples than the kernel takes": Mistake(
        rope, "max(1, NPU_ROWS // x_BSHD.shape[2])", "len(x_BSHD)", ValueError, "fewer than 1000"
    ),
    "tables without a batch": Mistake(rope, "table.unsqueeze(0)", "table", ValueError, "1, S, 1, D"),
    "tables of another format": Mistake(
        rope, "x_BSHD.float()", "x_BSHD.bfloat16()", TypeError, "rotation of"
    ),
}
REQUIRED: dict[ModuleType, Callable[[Form], None]] = {
    attention: agreement.require_attention,
    rms_norm: agreement.require_rms_norm,
    rope: agreement.require_rotation,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_caught(mistake: str) -> None:
    module, right, wrong, error, message = MISTAKES[mistake]
    require = REQUIRED[module]
    with pytest.raises(error, match=message):
        require(planted(module, right, wrong))


def test_a_layout_swap_that_shapes_do_not_show_changes_the_values() -> None:
    x = agreement.normal(2, 4, 4, 8)
    swapped = planted(attention, '"BSND"', '"BNSD"')(x, x, x)
    assert swapped.shape == attention.npu(x, x, x).shape
    assert not torch.allclose(swapped, attention.reference(x, x, x), atol=0.1)


def test_wrong_limits_are_caught_whatever_calls_the_operators() -> None:
    attend, turn, ones = torch.ops.npu.npu_fusion_attention, torch.ops.npu.npu_rotary_mul, torch.ones
    wide, narrow = ones(1, 2, 1, 769), ones(1, 2, 1, 8)
    calls: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: attend(wide, wide, wide, 1, "BSND"), ValueError, "at most 256 of 768"),
        (lambda: attend(*[ones(1, 2, 257, 8)] * 3, 257, "BSND"), ValueError, "at most 256 of 768"),
        (lambda: attend(*[narrow] * 3, 2, "BSND"), ValueError, "not BSND of 2 heads"),
        (lambda: attend(*[narrow.double()] * 3, 1, "BSND"), TypeError, "attention of torch.float64"),
        (lambda: attend(narrow, narrow, narrow.half(), 1, "BSND"), TypeError, "and torch.float16"),
        (lambda: attend(narrow, narrow, ones(1, 3, 1, 8), 1, "BSND"), ValueError, "values"),
        (lambda: attend(*[narrow] * 3, 1, "BSND", keep_prob=0.9), NotImplementedError, "dropout"),
        (lambda: turn(*[ones(1, 2, 1, 7)] * 3, "interleave"), ValueError, "rotation of"),
        (lambda: turn(*[ones(1, 2, 1, 896)] * 3, "interleave"), ValueError, "rotation of"),
        (lambda: turn(ones(2, 2, 3, 8), *[ones(2, 2, 1, 8)] * 2, "interleave"), ValueError, "1, S, 1, D"),
        (lambda: turn(narrow, *[2 * narrow] * 2, "interleave"), ValueError, r"\[-1, 1\]"),
    ]
    for call, error, message in calls:
        with pytest.raises(error, match=message):
            call()
