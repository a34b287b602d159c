"""Generation with two experts on the device makes the videos of the CPU."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.specs.diffusion import Expert, Solver
from mm_config.specs.infer import InferSpec
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.serving import GuidanceMode
from mm_infer import load
from tests.npu_standin.parity import assert_equal

REQUESTS = (
    GenerationRequest(prompt="a red circle moving right", seed=1),
    GenerationRequest(prompt="a blue square moving up", seed=2, negative_prompt="a red circle"),
)


def made(spec: InferSpec, options: RunOptions) -> tuple[torch.Tensor, torch.Tensor, list[Expert]]:
    """Latents, video, and the expert that took each step."""
    pipeline = load(spec, options=options)
    took: list[Expert] = []
    latents = pipeline.denoise(REQUESTS, on_step=lambda step, sigma, expert, latents: took.append(expert))
    return latents, pipeline.decode(latents), took


@pytest.mark.parametrize("solver", [Solver.UNIPC, Solver.EULER])
@pytest.mark.parametrize("guidance", [GuidanceMode.BATCHED, GuidanceMode.SEQUENTIAL])
def test_two_experts_make_the_video_of_the_cpu(
    npu: torch.device,
    npu_calls: Counter[str],
    spec: InferSpec,
    options: RunOptions,
    solver: Solver,
    guidance: GuidanceMode,
) -> None:
    changes = {"sampler.solver": solver, "runtime.guidance": guidance}
    expected, expected_video, experts = made(replace(spec, {**changes, "runtime.device": "cpu"}), options)
    assert set(experts) == {Expert.HIGH_NOISE, Expert.LOW_NOISE}
    assert not npu_calls
    actual, video, took = made(replace(spec, {**changes, "runtime.device": "npu"}), options)
    assert took == experts
    assert actual.device.type == "npu" and video.device.type == "cpu"
    assert_equal(actual, expected)
    assert_equal(video, expected_video)
    passes = 2 if guidance is GuidanceMode.SEQUENTIAL else 1
    assert npu_calls["npu_fusion_attention"] == 2 * passes * len(experts)
