"""Videos whose attention is not exact: another result, and what it can't be with."""

from __future__ import annotations

import pytest
import torch

from mm_config import replace, spec_hash
from mm_config.options.run_options import RunOptions
from mm_config.rules import problems
from mm_config.rules.carried_out import refusals
from mm_config.specs import ApproximateAttention, AttentionImpl, InferSpec, SparseAttentionSpec
from mm_infer import load

SAGE, FLASH_4 = ApproximateAttention.SAGE, ApproximateAttention.FLASH_4


@pytest.mark.parametrize("wanted", [SAGE, FLASH_4])
def test_a_video_is_another_one_and_comes_out_again(
    wanted: ApproximateAttention, spec: InferSpec, options: RunOptions
) -> None:
    prompts = ["a red circle moving right"]
    (exact,) = load(spec, options)(prompts, output="float")
    changed = replace(spec, "approximate_attention", wanted)
    assert spec_hash(changed) != spec_hash(spec)
    (found,) = load(changed, options)(prompts, output="float")
    (again,) = load(changed, options)(prompts, output="float")
    assert torch.equal(found.frames, again.frames)
    assert 0 < (found.frames - exact.frames).abs().max() < 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"runtime.attention": AttentionImpl.SDPA},
            "spec.runtime.attention: is sdpa, but spec.approximate_attention is sage, which takes its place",
        ),
        (
            {"runtime.device": "npu"},
            "spec.approximate_attention: is sage, which is for cuda and, in a plain form, cpu, but ",
        ),
        (
            {"runtime.parallel.ring": 2},
            "spec.approximate_attention: is sage, which gives no log-sum-exp, by which a ring merges ",
        ),
        (
            {"runtime.parallel.ulysses": 2},
            "spec.approximate_attention: is sage, which rounds by blocks of 128 tokens, and ranks that ",
        ),
        (
            {"sparse_attention": SparseAttentionSpec(dense_steps=1)},
            "spec.approximate_attention: is sage, which can't be sparse yet; leave it or sparse_",
        ),
    ],
)
def test_what_it_can_not_be_with_is_refused_by_name(
    changes: dict[str, object], message: str, spec: InferSpec
) -> None:
    changed = replace(replace(spec, "approximate_attention", SAGE), changes)
    found = [str(problem) for problem in (*problems(changed), *refusals(changed))]
    assert any(one.startswith(message) for one in found), found


def test_the_old_name_is_refused_with_the_new_one(spec: InferSpec) -> None:
    for old in (AttentionImpl.SAGE, AttentionImpl.FLASH_4):
        (problem,) = problems(replace(spec, {"runtime.attention": old, "runtime.device": "auto"}))
        assert str(problem) == (
            f"spec.runtime.attention: is {old.value}, which is not exact; choose auto, and "
            f"spec.approximate_attention={old.value}"
        )
