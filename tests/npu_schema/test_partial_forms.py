"""Ascend's attention to a part of the keys, through the operators' real schemas."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from mm_models.ops import attention
from mm_models.ops.partial_attention import FORMS
from tests.npu_schema.agreement import normal


@pytest.mark.parametrize("name", FORMS)
def test_two_parts_merge_to_the_whole_and_so_do_their_gradients(name: str, npu_calls: Counter[str]) -> None:
    """Merged by hand: each part counts as the exponentials of its scores do among all."""
    query, key, value = (
        normal(2, tokens, 3, 8, name=kind).requires_grad_() for kind, tokens in (("q", 4), ("k", 7), ("v", 7))
    )
    whole = attention.reference(query, key, value)
    gradient = normal(2, 4, 3, 8, name="gradient")
    expected = torch.autograd.grad(whole, (query, key, value), gradient)

    form, cuts = FORMS[name], (slice(0, 2), slice(2, 7))
    with torch.no_grad():
        parts = [form.forward(query, key[:, cut], value[:, cut]) for cut in cuts]
        lse_BHS = torch.stack([lse for _, lse in parts]).logsumexp(0)
        shares = [(lse - lse_BHS).exp().transpose(1, 2).unsqueeze(-1) for _, lse in parts]
        out = sum(share * part for share, (part, _) in zip(shares, parts, strict=True))
        assert isinstance(out, Tensor)
        torch.testing.assert_close(out, whole)
        found = [form.backward(gradient, query, key[:, cut], value[:, cut], out, lse_BHS) for cut in cuts]
    first, second = found
    torch.testing.assert_close(first[0] + second[0], expected[0])
    for index in (1, 2):
        torch.testing.assert_close(torch.cat((first[index], second[index]), 1), expected[index])
    calls = {"npu_fusion_attention": 2, "npu_fusion_attention_grad": 2}
    assert npu_calls == (calls if name == "npu" else {})
