"""Networks whose blocks are compiled make the same videos, and a user is told what was compiled."""

from __future__ import annotations

import shutil

import pytest
import torch

from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.rules.carried_out import refusals
from mm_config.specs.infer import InferSpec
from mm_config.specs.parallel import CompileBackend, CompileMode, CompileSpec
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.serving import (
    ApproximateAttention,
    FeatureCacheSpec,
    GuidanceMode,
    QuantFormat,
    QuantizationSpec,
    Residency,
    ResidencySpec,
)
from mm_infer import load

REQUESTS = (
    GenerationRequest(prompt="a red circle moving right", seed=1),
    GenerationRequest(prompt="a blue square moving up", seed=2),
)
AOT_EAGER = CompileSpec(enabled=True, backend=CompileBackend.AOT_EAGER)
# Two videos of 5 x 2 x 2 tokens of width 32, and both branches of guidance.
BOTH, ONE = "4x20x32", "2x20x32"


def check(
    spec: InferSpec,
    options: RunOptions,
    how: CompileSpec,
    told: str,
    capsys: pytest.CaptureFixture[str],
    near: float = 1e-5,
) -> None:
    """Latents are those of the blocks as they are, and the last line says what was compiled."""
    torch._dynamo.reset()
    expected = load(spec, options).denoise(REQUESTS)
    capsys.readouterr()
    found = load(replace(spec, "runtime.compile", how), options).denoise(REQUESTS)
    torch.testing.assert_close(found, expected, rtol=near, atol=near)
    assert capsys.readouterr().out.splitlines()[-1] == told


def test_both_experts_share_what_is_compiled(
    spec: InferSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    check(spec, options, AOT_EAGER, f"blocks compiled 1 time: for {BOTH}", capsys)


@pytest.mark.parametrize(
    ("quantization", "near"),
    [
        (QuantizationSpec(format=QuantFormat.INT8), 1e-5),
        (QuantizationSpec(format=QuantFormat.FP8), 1e-5),
        # An input between two steps of int8 may fall to either.
        (QuantizationSpec(format=QuantFormat.INT8, dynamic=True), 1e-2),
    ],
    ids=["int8", "fp8", "dynamic"],
)
def test_quantised_layers_are_compiled_too(
    quantization: QuantizationSpec,
    near: float,
    spec: InferSpec,
    options: RunOptions,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quantized = replace(spec, "quantization", quantization)
    check(quantized, options, AOT_EAGER, f"blocks compiled 1 time: for {BOTH}", capsys, near)


@pytest.mark.parametrize(
    "residency",
    [ResidencySpec(experts=Residency.SWAP), ResidencySpec(experts=Residency.LAYERWISE, prefetch=0)],
    ids=["swap", "layerwise"],
)
def test_blocks_that_wait_are_compiled_too(
    residency: ResidencySpec, spec: InferSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = replace(spec, "runtime.residency", residency)
    check(waiting, options, AOT_EAGER, f"blocks compiled 1 time: for {BOTH}", capsys)


def test_steps_that_a_cache_skips_are_those_of_blocks_as_they_are(
    spec: InferSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    cached = replace(spec, "feature_cache", FeatureCacheSpec(dense_share=0.5, skipped=(3,)))
    check(cached, options, AOT_EAGER, f"blocks compiled 1 time: for {BOTH}", capsys)


@pytest.mark.parametrize("wanted", ApproximateAttention)
def test_attention_that_is_not_exact_is_compiled_too(
    wanted: ApproximateAttention, spec: InferSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = replace(spec, "approximate_attention", wanted)
    check(changed, options, AOT_EAGER, f"blocks compiled 1 time: for {BOTH}", capsys)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs g++ on a CPU")
@pytest.mark.parametrize("guidance", [GuidanceMode.BATCHED, GuidanceMode.SEQUENTIAL])
def test_inductors_latents_are_those_of_blocks_that_are_not_compiled(
    guidance: GuidanceMode, spec: InferSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = replace(spec, "runtime.guidance", guidance)
    told = f"blocks compiled 1 time: for {BOTH if guidance is GuidanceMode.BATCHED else ONE}"
    check(changed, options, CompileSpec(enabled=True), told, capsys)


@pytest.mark.parametrize(
    ("dynamic", "told"),
    [
        (False, "blocks compiled 2 times: for 4x20x32, again for the new shape 2x20x32"),
        (True, "blocks compiled 1 time: for 4x20x32"),
    ],
)
def test_a_new_shape_compiles_again_unless_sizes_are_variables(
    dynamic: bool, told: str, spec: InferSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    torch._dynamo.reset()
    how = replace(AOT_EAGER, {"backend": CompileBackend.EAGER, "dynamic": dynamic})
    pipeline = load(
        replace(spec, {"runtime.compile": how, "runtime.batch_size": 2, "sampler.steps": 2}), options
    )
    requests = (*REQUESTS, REQUESTS[0])  # A batch of two, then one alone.
    pipeline.denoise(requests)
    assert capsys.readouterr().out.splitlines()[-1] == told
    pipeline.denoise(requests)
    told = "blocks compiled 0 times: those that were there served"
    assert capsys.readouterr().out.splitlines()[-1] == told


def test_what_chooses_kernels_by_their_times_is_not_deterministic(spec: InferSpec) -> None:
    chosen = CompileSpec(enabled=True, mode=CompileMode.MAX_AUTOTUNE)
    (problem,) = refusals(replace(spec, {"runtime.deterministic": True, "runtime.compile": chosen}))
    assert problem.path == "spec.runtime.compile.mode"
    assert problem.message.endswith("deterministic needs default")
