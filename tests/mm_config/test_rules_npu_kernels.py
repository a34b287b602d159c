"""Attention beyond what Ascend's kernels take is refused before a card does, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mm_config import replace
from mm_config.rules import check_kernels, request_problems
from mm_config.rules.npu_kernels import kernel_problems
from mm_config.schema.errors import UserError
from mm_config.specs.data import BucketSpec
from mm_config.specs.dtype import Dtype
from mm_config.specs.parallel import AttentionImpl
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.weights import RandomWeights
from tests import npu_attention
from tests.mm_config.breaking import INFER, TRAIN, WAN_T2V, found, only

DRAWN = replace(INFER, {"high_noise": RandomWeights(seed=1), "low_noise": RandomWeights(seed=2)})
NPU = {"runtime.device": "npu"}
SDPA = {"runtime.attention": AttentionImpl.SDPA, "runtime.device": "npu"}
LONG = {"num_frames": 1205, "height": 720, "width": 1280}
"""302 latent frames of 90 x 160 cells, 45 x 80 tokens each: 1,087,200."""


def heads(number: int, width: int) -> dict[str, Any]:
    return {"model.num_attention_heads": number, "model.hidden_size": number * width}


@pytest.mark.parametrize(
    ("changes", "path", "part"),
    [
        (
            heads(258, 6) | NPU,
            "model.num_attention_heads",
            "is 258, 258 on a rank, but attention on an NPU takes at most 256; a tensor of 2 or more "
            "in runtime.parallel splits them",
        ),
        (
            heads(2, 770) | NPU,
            "model.num_attention_heads",
            "makes heads of 770 values, but attention on an NPU takes at most 768; more and narrower heads",
        ),
        (
            heads(2, 514) | SDPA,
            "model.num_attention_heads",
            "makes heads of 514 values, but attention sdpa on an NPU takes at most 512",
        ),
        (
            heads(2, 30) | SDPA,
            "runtime.attention",
            "is sdpa, which on an NPU takes no float32 heads of 30 values, only multiples of 4; choose auto",
        ),
    ],
)
def test_what_no_kernel_takes_is_refused(changes: dict[str, Any], path: str, part: str) -> None:
    only(DRAWN, changes, path, part)
    for other in ({"runtime.device": "cpu"}, {"runtime.device": "auto"}):
        assert not found(DRAWN, changes | other)
    assert not found(DRAWN, changes | {"runtime.attention": AttentionImpl.REFERENCE})


def test_sequences_are_those_of_a_rank() -> None:
    long = LONG | NPU | {"model.rope_max_seq_len": 2048}
    told = "makes sequences of 1087200 tokens, but attention on an NPU takes at most 1000000"
    only(WAN_T2V, long, "num_frames", told, "a ring of 2 or more in runtime.parallel")
    assert not found(WAN_T2V, long | {"runtime.parallel.ring": 2})


def test_what_is_at_the_limit_is_allowed() -> None:
    for changes in (heads(256, 6), heads(2, 768), heads(2, 512) | SDPA, heads(2, 32) | SDPA):
        assert not found(DRAWN, changes | NPU)
    narrow = heads(2, 30) | SDPA | {"dtype": Dtype.BFLOAT16, "float32_residual": False}
    assert not found(DRAWN, narrow)
    assert not found(DRAWN, heads(258, 6) | NPU | {"runtime.parallel.tensor": 2})


def test_a_training_is_refused_by_its_own_fields() -> None:
    told = "258 on a rank", "in parallel splits them"
    only(TRAIN, heads(258, 6) | NPU, "model.num_attention_heads", *told)
    bucket = BucketSpec(num_frames=4001, height=1024, width=1024)
    asked = {"data.buckets": (BucketSpec(num_frames=17, height=64, width=64), bucket)}
    spec = replace(TRAIN, asked | {"model.rope_max_seq_len": 4096})
    paths = [one.path for one in kernel_problems(spec, "npu")]
    assert paths == ["data.buckets.1.num_frames"] and not [*kernel_problems(spec, "cpu")]


@pytest.mark.parametrize(
    ("number", "width", "tokens", "allowed"),
    [(256, 1, 1, True), (257, 1, 1, False), (1, 768, 1, True), (1, 769, 1, False), (1, 1, 1_000_001, False)],
)
def test_the_limits_are_those_that_the_references_refuse(
    number: int, width: int, tokens: int, allowed: bool
) -> None:
    query, key = torch.zeros(1, tokens, number, width), torch.zeros(1, 1, number, width)
    if allowed:
        npu_attention.npu_fusion_attention(query, key, key, number, "BSND")
        return
    with pytest.raises(ValueError, match="at most"):
        npu_attention.npu_fusion_attention(query, key, key, number, "BSND")


def test_a_request_of_another_size_is_refused_too() -> None:
    spec = replace(WAN_T2V, NPU | {"model.rope_max_seq_len": 2048})
    request = GenerationRequest(prompt="a cat", num_frames=1205, height=720, width=1280)
    (problem,) = request_problems(request, spec)
    assert (problem.path, "1087200 tokens" in problem.message) == ("num_frames", True)


def test_the_device_that_auto_turned_out_to_be_refuses_them() -> None:
    spec = replace(DRAWN, heads(258, 6) | {"runtime.device": "auto"})
    check_kernels(spec, "cpu")
    with pytest.raises(UserError, match=r"spec\.model\.num_attention_heads: is 258"):
        check_kernels(spec, "npu")
