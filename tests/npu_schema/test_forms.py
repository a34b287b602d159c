"""The forms for Ascend against the plain ones, through the operators' real schemas."""

from collections import Counter
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from mm_config.schema.errors import UserError
from mm_config.specs.parallel import AttentionImpl
from mm_models.ops import attention, rms_norm, rope
from mm_models.ops.choosing import choose
from tests import npu_references
from tests.npu_schema import agreement
from tests.npu_schema.agreement import normal
from tests.npu_schema.schemas import SNAPSHOT, schemas


def test_attention_equals_its_reference_with_masks_of_every_shape(npu_calls: Counter[str]) -> None:
    agreement.require_attention(attention.npu)
    assert npu_calls == {"npu_fusion_attention": len(agreement.masks()) + 1}


def test_the_norm_equals_its_reference(npu_calls: Counter[str]) -> None:
    agreement.require_rms_norm(rms_norm.npu)
    assert npu_calls == {"npu_rms_norm": 4}


def test_rotation_equals_its_reference_and_is_split_within_the_kernels_limit(npu_calls: Counter[str]) -> None:
    agreement.require_rotation(rope.npu)
    # 30 samples of 40 heads are 1200, of which one call takes fewer than 1000.
    assert npu_calls == {"npu_rotary_mul": 1 + 2 + 1}


def test_bfloat16_stays_and_errs_by_its_own_rounding() -> None:
    query, key = normal(2, 5, 3, 8).bfloat16(), normal(2, 7, 3, 8).bfloat16()
    tables = rope.grid_table(rope.axis_table(8, 8), (1, 1, 5))
    weight = normal(8, name="weight")
    pairs = [
        (attention.npu(query, key, key), attention.reference(query.float(), key.float(), key.float())),
        (rms_norm.npu(query, weight, 1e-6), rms_norm.reference(query.float(), weight, 1e-6)),
        (
            rms_norm.npu(query, weight.bfloat16(), 1e-6),
            rms_norm.reference(query.float(), weight.bfloat16().float(), 1e-6),
        ),
        (rope.npu(query, tables), rope.reference(query.float(), tables)),
    ]
    for found, expected in pairs:
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), expected, rtol=2**-8, atol=1e-6)


def test_a_weight_narrower_than_its_input_is_widened() -> None:
    x, weight = normal(2, 5, 8), normal(8, name="weight").bfloat16()
    torch.testing.assert_close(rms_norm.npu(x, weight, 1e-6), rms_norm.reference(x, weight, 1e-6))


def test_a_mask_in_mode_1_is_not_cut_to_a_band() -> None:
    """Wan's 75,600 tokens at 720p are more than the 65,536 that other code writes as the band's reach."""
    tokens = 75_600
    query, keys = normal(1, 1, 1, 4), normal(1, tokens, 1, 4, name="keys")
    mask = torch.zeros(tokens, dtype=torch.bool)
    mask[70_000:] = True
    expected = attention.reference(query, keys, keys, mask)
    torch.testing.assert_close(attention.npu(query, keys, keys, mask), expected)
    with pytest.raises(ValueError, match="all masked out"):
        torch.ops.npu.npu_fusion_attention(
            query, keys, keys, 1, "BSND", atten_mask=~mask[None], scale=0.5, next_tockens=65_536
        )


@pytest.mark.parametrize("form", [attention.npu, attention.sdpa, attention.reference, attention.flash_2])
def test_additive_masks_are_refused_by_every_form(form: agreement.Form) -> None:
    """PyTorch's attention takes them on an NPU too, and then holds a score for every pair of tokens."""
    x = normal(1, 4, 2, 8)
    with pytest.raises(TypeError, match=r"a mask of attention is of bools|takes no mask"):
        form(x, x, x, torch.zeros(4, 4))


def test_an_npu_takes_the_fused_forms_and_lists_the_others() -> None:
    assert choose("npu").names() == {
        "attention": "npu",
        "rms_norm": "npu",
        "rotate": "npu",
        "modulate": "reference",
        "gate_residual": "reference",
    }
    assert choose("npu", AttentionImpl.SDPA).names()["attention"] == "sdpa"
    with pytest.raises(
        UserError, match=r"not available on npu .*here; available: auto, npu, sdpa, reference"
    ):
        choose("npu", AttentionImpl.FLASH_3)
    with pytest.raises(UserError, match="is npu, which is not available on cpu"):
        choose("cpu", AttentionImpl.NPU)


def test_the_backward_references_are_the_derivatives_of_the_forward_ones() -> None:
    """torch_npu's own derivatives call them, in the tests over the real library."""
    query, key, value = (normal(2, 4, 3, 8, name=name).requires_grad_() for name in ("q", "k", "v"))
    hidden = torch.eye(4, dtype=torch.bool)
    arguments = {"atten_mask": hidden, "sparse_mode": 1}
    out, maximum, total, *_ = npu_references.npu_fusion_attention(
        query, key, value, 3, "BSND", scale=0.3, **arguments
    )
    gradient = normal(2, 4, 3, 8, name="gradient")
    found = npu_references.npu_fusion_attention_grad(
        *(query, key, value, gradient, 3, "BSND"),
        softmax_max=maximum,
        softmax_sum=total,
        attention_in=out,
        scale_value=0.3,
        **arguments,
    )
    _require_close(found[:3], torch.autograd.grad(out, (query, key, value), gradient))

    weight = normal(8, name="weight").requires_grad_()
    out, rstd = npu_references.npu_rms_norm(query, weight)
    found = npu_references.npu_rms_norm_backward(gradient, query, weight, rstd)
    _require_close(found, torch.autograd.grad(out, (query, weight), gradient))

    cos, sin = (table.unsqueeze(0) for table in rope.grid_table(rope.axis_table(8, 8), (1, 2, 2)))
    for mode in ("interleave", "half"):
        tables = cos.requires_grad_(), sin.requires_grad_()
        out = npu_references.npu_rotary_mul(query, *tables, mode)
        found = npu_references.npu_rotary_mul_backward(gradient, query, *tables, mode)
        _require_close(found, torch.autograd.grad(out, (query, *tables), gradient))


def _require_close(found: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


def test_the_snapshot_names_its_wheel_and_has_what_is_called() -> None:
    assert SNAPSHOT.read_text("utf-8").startswith("# torch_npu 2.")
    names = {schema.partition("(")[0] for schema in schemas()}
    assert {"npu_fusion_attention", "npu_rms_norm", "npu_rotary_mul"} <= names
