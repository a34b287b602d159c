"""Generation as a whole: what a video depends on, and what it does not."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch

from experiments import tiny
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.serving import FeatureCacheSpec, GuidanceMode, Residency
from mm_config.specs.weights import ReleasedWeights
from mm_config.stored import from_payload, to_payload
from mm_infer import Pipeline, generate, load

RED, BLUE = "a red circle moving right", "a blue square moving up"
REQUESTS = (
    GenerationRequest(prompt=RED, seed=1),
    GenerationRequest(prompt=RED, seed=2, negative_prompt=BLUE),
    GenerationRequest(prompt=BLUE, seed=1),
)


def make(pipeline: Pipeline, *requests: GenerationRequest) -> torch.Tensor:
    return pipeline.decode(pipeline.denoise(requests))


def frames_of(spec: InferSpec, options: RunOptions, *requests: GenerationRequest) -> list[torch.Tensor]:
    return [video.frames for video in generate(spec, requests, options=options)]


def test_a_video_of_a_batch_equals_the_same_video_made_alone(spec: InferSpec, options: RunOptions):
    loaded = load(spec, options=options)
    together = make(loaded, *REQUESTS)
    for request, video in zip(REQUESTS, together, strict=True):
        alone = make(loaded, request)[0]
        assert float((alone - video).abs().max()) <= 1e-5
    assert float((together[0] - together[1]).abs().max()) > 0.1
    assert float((together[0] - together[2]).abs().max()) > 0.01


def test_videos_arrive_in_the_order_of_the_requests_whatever_the_batch_size(
    spec: InferSpec, options: RunOptions
):
    in_threes = generate(spec, REQUESTS * 2, options=options)
    in_fours = generate(replace(spec, "runtime.batch_size", 4), REQUESTS * 2, options=options)
    assert [video.request for video in in_threes] == list(REQUESTS * 2)
    for one, other in zip(in_threes, in_fours, strict=True):
        assert one.frames.shape == (17, 64, 64, 3) and one.frames.dtype == torch.uint8
        # Rounding to 8 bits can turn a difference of 1e-6 into one level.
        assert int((one.frames.int() - other.frames.int()).abs().max()) <= 1


def test_prompt_seed_negative_prompt_and_each_expert_change_the_video(spec: InferSpec, options: RunOptions):
    request = GenerationRequest(prompt=RED, seed=1)
    (first,) = frames_of(spec, options, request)
    (again,) = frames_of(spec, options, request)
    assert torch.equal(first, again)
    others = frames_of(
        spec,
        options,
        GenerationRequest(prompt=BLUE, seed=1),
        GenerationRequest(prompt=RED, seed=2),
        GenerationRequest(prompt=RED, seed=1, negative_prompt=BLUE),
    )
    high_twice = replace(spec, "low_noise", spec.high_noise)
    low_twice = replace(spec, "high_noise", spec.low_noise)
    others += frames_of(high_twice, options, request) + frames_of(low_twice, options, request)
    assert not any(torch.equal(first, other) for other in others)


def test_the_specs_negative_prompt_serves_requests_that_have_none(spec: InferSpec, options: RunOptions):
    request = GenerationRequest(prompt=REQUESTS[0].prompt, seed=4)
    own = replace(request, "negative_prompt", "a blue square")
    with_default = load(replace(spec, "negative_prompt", "a blue square"), options=options)
    assert torch.equal(make(with_default, request), make(load(spec, options=options), own))
    assert not torch.equal(make(with_default, request), make(load(spec, options=options), request))
    other = replace(request, "negative_prompt", "a red circle")
    assert torch.equal(make(with_default, other), make(load(spec, options=options), other))


def test_an_empty_negative_prompt_of_a_request_is_an_empty_one(spec: InferSpec, options: RunOptions):
    prompt, plain = REQUESTS[0].prompt, load(spec, options=options)
    avoiding = load(replace(spec, "negative_prompt", "a blue square"), options=options)
    nothing = GenerationRequest(prompt=prompt, negative_prompt="")
    unsaid = GenerationRequest(prompt=prompt)
    assert torch.equal(make(avoiding, nothing), make(plain, unsaid))
    assert not torch.equal(make(avoiding, nothing), make(avoiding, unsaid))
    # Requests that were stored before an empty text could be meant go on standing for the spec's.
    older = {"negative_prompt": "", "prompt": prompt, "seed": 0}
    read = from_payload({**to_payload(nothing), "spec": older})
    assert torch.equal(make(avoiding, read), make(avoiding, unsaid))
    for request in (nothing, unsaid, read):
        assert from_payload(to_payload(request)) == request


def test_guidance_in_two_passes_gives_the_video_of_one(spec: InferSpec, options: RunOptions):
    apart = load(replace(spec, "runtime.guidance", GuidanceMode.SEQUENTIAL), options=options)
    difference = make(apart, REQUESTS[0]) - make(load(spec, options=options), REQUESTS[0])
    assert float(difference.abs().max()) <= 1e-5


def test_what_generation_cannot_do_yet_is_named_at_once(spec: InferSpec, options: RunOptions):
    changes = {
        "feature_cache": FeatureCacheSpec(),
        "runtime.residency.experts": Residency.SWAP,
    }
    with pytest.raises(UserError) as caught:
        generate(replace(spec, changes), REQUESTS, options=options)
    unknown = {"feature_cache": "feature_cache.skipped"}
    paths = {problem.path for problem in caught.value.problems}
    assert paths == {f"spec.{unknown.get(path, path)}" for path in changes}


def test_without_guidance_the_negative_prompt_has_no_part(spec: InferSpec, options: RunOptions):
    unguided = replace(spec, {"sampler.guidance_high_noise": 1.0, "sampler.guidance_low_noise": 1.0})
    plain, negative = frames_of(
        unguided,
        options,
        GenerationRequest(prompt=RED, seed=1),
        GenerationRequest(prompt=RED, seed=1, negative_prompt=BLUE),
    )
    assert int((plain.int() - negative.int()).abs().max()) <= 1


def test_a_single_network_needs_no_boundary(spec: InferSpec, options: RunOptions):
    single = replace(spec, {"boundary": None, "low_noise": None})
    (video,) = frames_of(single, options, GenerationRequest(prompt=RED))
    assert video.shape == (17, 64, 64, 3)


def test_bfloat16_networks_stay_near_their_float32_video(spec: InferSpec, options: RunOptions):
    request = GenerationRequest(prompt=RED, seed=1)
    exact = make(load(spec, options=options), request)
    rounded = make(load(replace(spec, "dtype", Dtype.BFLOAT16), options=options), request)
    assert rounded.dtype == torch.float32
    error = float((exact - rounded).abs().mean())
    assert 0 < error < 0.05 * float(exact.abs().mean())
    wide = replace(spec, {"dtype": Dtype.BFLOAT16, "float32_residual": True})
    assert 0 < float((exact - make(load(wide, options=options), request)).abs().mean()) < 0.8 * error


@pytest.mark.parametrize(("wide", "dtype"), [(False, torch.bfloat16), (True, torch.float32)])
def test_the_network_is_given_latents_as_wide_as_its_residual_stream(
    spec: InferSpec, options: RunOptions, wide: bool, dtype: torch.dtype
):
    pipeline = load(
        replace(spec, {"dtype": Dtype.BFLOAT16, "float32_residual": wide, "sampler.steps": 2}),
        options=options,
    )
    given: set[torch.dtype] = set()
    for network in pipeline.networks.values():
        network.register_forward_pre_hook(lambda _, arguments: given.add(arguments[0].dtype))
    pipeline.denoise(REQUESTS[:1])
    assert given == {dtype}


def test_blank_prompts_are_named_all_at_once(spec: InferSpec, options: RunOptions):
    requests = [GenerationRequest(prompt=prompt) for prompt in (" ", RED, "\t")]
    with pytest.raises(UserError) as caught:
        generate(spec, requests, options=options)
    assert [str(problem) for problem in caught.value.problems] == [
        "request 0.prompt: must say something, got ' '",
        "request 2.prompt: must say something, got '\\t'",
    ]


def test_values_that_are_not_finite_are_reported_and_not_written_as_black(
    spec: InferSpec, options: RunOptions
):
    with pytest.raises(UserError, match="not finite"):
        generate(replace(spec, "sampler.guidance_low_noise", 1e39), REQUESTS, options=options)


def test_a_prompt_beyond_the_text_encoder_is_refused(spec: InferSpec, options: RunOptions):
    with pytest.raises(UserError, match="40 words"):
        generate(spec, [GenerationRequest(prompt="red " * 40)], options=options)


def test_weights_that_are_nowhere_name_their_field(spec: InferSpec, options: RunOptions):
    unknown = replace(spec, "low_noise", ReleasedWeights(name="test/other"))
    with pytest.raises(UserError, match=r"spec\.low_noise: .*test/other"):
        generate(unknown, REQUESTS, options=options)
    untrained = replace(tiny.SPEC, "runtime.build_missing", False)
    with pytest.raises(UserError) as caught:
        generate(untrained, REQUESTS, options=options)
    assert [problem.path for problem in caught.value.problems] == ["spec.high_noise", "spec.low_noise"]
    assert all("build_missing" in problem.message for problem in caught.value.problems)


def test_weights_that_are_nowhere_are_named_before_a_training_starts(options: RunOptions):
    half = replace(
        tiny.SPEC, {"low_noise": ReleasedWeights(name="test/other"), "runtime.build_missing": True}
    )
    with pytest.raises(UserError) as caught:
        generate(half, REQUESTS, options=options)
    assert [problem.path for problem in caught.value.problems] == ["spec.low_noise"]
    assert not options.runs_dir.exists()


def test_after_a_training_that_failed_no_other_is_started(options: RunOptions, tmp_path: Path):
    (tmp_path / "file").touch()
    nowhere = attrs.evolve(options, runs_dir=tmp_path / "file" / "runs")
    with pytest.raises(UserError) as caught:
        generate(replace(tiny.SPEC, "runtime.build_missing", True), REQUESTS, options=nowhere)
    assert len(caught.value.problems) == 1


def test_weights_of_another_architecture_are_refused(spec: InferSpec, options: RunOptions):
    with pytest.raises(UserError, match=r"blocks\.1"):
        generate(replace(spec, "model.num_layers", 2), REQUESTS, options=options)
