"""Forms of sparse attention: against softmax written out, one query after the other."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mm_config.specs import AttentionImpl, SparseAttentionSpec, SparsePattern
from mm_models.ops import attention
from mm_models.ops.block_masks import block_mask
from mm_models.ops.sparse_attention import FLEX, MASKED, PLAIN, ROWS, SparseForm, choose_sparse
from mm_models.seeding import generator

GRID = (5, 3, 4)
CPU = torch.device("cpu")
SPECS = [
    SparseAttentionSpec(decay_factor=0.3, block_size=7),
    SparseAttentionSpec(pattern=SparsePattern.LOCAL, window=1, block_size=4),
    SparseAttentionSpec(decay_factor=0.5, block_size=1),
]


def inputs(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = torch.randn(3, 2, tokens, 3, 8, generator=generator(1, "tokens")).unbind()
    return query, key, value


def by_hand(query: Tensor, key: Tensor, value: Tensor, sees: Callable[[int, int], bool]) -> Tensor:
    """Each query alone with the keys that it sees."""
    batch, tokens, heads, width = query.shape
    out = torch.zeros_like(query)
    for sample in range(batch):
        for head in range(heads):
            for one in range(tokens):
                seen = [other for other in range(tokens) if sees(one, other)]
                scores = [float(query[sample, one, head] @ key[sample, other, head]) for other in seen]
                weights = [math.exp(score / math.sqrt(width)) for score in scores]
                rows = zip(weights, seen, strict=True)
                out[sample, one, head] = sum(w * value[sample, other, head] for w, other in rows) / sum(
                    weights
                )
    return out


def attended(form: SparseForm, spec: SparseAttentionSpec, tensors: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    ready = form.ready(block_mask(spec, GRID), spec.block_size, math.prod(GRID), CPU)
    return form.attend(attention.sdpa, *tensors, ready)


@pytest.mark.parametrize("spec", SPECS)
def test_every_form_is_softmax_over_the_blocks_that_are_seen(spec: SparseAttentionSpec):
    mask, tensors = block_mask(spec, GRID), inputs(math.prod(GRID))
    assert not mask.all()
    wanted = by_hand(
        *tensors, lambda one, other: bool(mask[one // spec.block_size, other // spec.block_size])
    )
    for form in (PLAIN, MASKED, ROWS):
        assert float((attended(form, spec, tensors) - wanted).abs().max()) <= 1e-5, form.name


@pytest.mark.parametrize("spec", SPECS)
def test_flex_attention_gets_the_same_blocks(spec: SparseAttentionSpec, monkeypatch: pytest.MonkeyPatch):
    """What the kernels are told, twice: whole blocks by their numbers, and a mask for the plain form."""
    mask, tokens = block_mask(spec, GRID), math.prod(GRID)
    ready = FLEX.ready(mask, spec.block_size, tokens, CPU)
    assert torch.equal(ready.to_dense()[0, 0].bool(), mask)
    assert not ready.kv_num_blocks.any() and torch.equal(ready.full_kv_num_blocks[0, 0], mask.sum(1).int())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    tensors = inputs(tokens)
    found, wanted = (attended(form, spec, tensors) for form in (FLEX, PLAIN))
    assert float((found - wanted).abs().max()) <= 1e-5


@pytest.mark.slow
def test_flex_attention_compiled_for_a_cpu_is_the_plain_form():
    """60 tokens in blocks of 16: the last one is short."""
    spec = SparseAttentionSpec(pattern=SparsePattern.LOCAL, window=1, block_size=16)
    tensors = inputs(math.prod(GRID))
    with torch.inference_mode():
        found, wanted = (attended(form, spec, tensors) for form in (FLEX, PLAIN))
    assert float((found - wanted).abs().max()) <= 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("block_size", [128, 256])
def test_flex_attention_on_cuda_is_the_plain_form(block_size: int):
    grid, device = (5, 14, 15), torch.device("cuda")
    spec = SparseAttentionSpec(decay_factor=0.2, block_size=block_size)
    mask, tokens = block_mask(spec, grid), math.prod(grid)
    query, key, value = (one.to(device) for one in inputs(tokens))
    found, wanted = (
        form.attend(attention.sdpa, query, key, value, form.ready(mask, block_size, tokens, device))
        for form in (FLEX, PLAIN)
    )
    assert float((found - wanted).abs().max()) <= 1e-3


def test_rows_compute_no_pair_that_is_not_seen():
    spec, pairs = SPECS[0], 0

    def counting(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        nonlocal pairs
        pairs += query.shape[1] * key.shape[1]
        return query

    tokens = math.prod(GRID)
    ready = ROWS.ready(block_mask(spec, GRID), spec.block_size, tokens, CPU)
    ROWS.attend(counting, *inputs(tokens), ready)
    assert pairs == int(PLAIN.ready(block_mask(spec, GRID), spec.block_size, tokens, CPU).sum())


@pytest.mark.parametrize(
    ("device", "wanted", "size", "compiled", "form"),
    [
        ("cpu", AttentionImpl.AUTO, 128, False, ROWS),
        ("npu", AttentionImpl.NPU, 128, False, ROWS),
        ("cpu", AttentionImpl.SDPA, 128, True, MASKED),
        ("cuda", AttentionImpl.FLASH_3, 256, True, FLEX),
        ("cuda", AttentionImpl.AUTO, 64, False, ROWS),
        ("cuda", AttentionImpl.REFERENCE, 128, False, PLAIN),
    ],
)
def test_a_device_gets_its_form(
    device: str, wanted: AttentionImpl, size: int, compiled: bool, form: SparseForm
):
    place = torch.device("meta") if device == "npu" else torch.device(device)
    assert choose_sparse(place, wanted, size, compiled=compiled) is form
