"""The door for Python: a pipeline that is loaded once, own tensors, every step, frames of either kind."""

from __future__ import annotations

import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

import mm_infer
import mm_models
from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions, Threads
from mm_config.schema.errors import UserError
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import InferSpec
from mm_config.specs.npu import NpuSpec
from mm_config.specs.requests import GenerationRequest
from mm_data import to_frames
from mm_infer import Pipeline, Video
from mm_infer.denoise import denoise
from mm_infer.passes import by_networks
from mm_models.seeding import generator

RED, BLUE = "a red circle moving right", "a blue square moving up"
REQUESTS = (
    GenerationRequest(prompt=RED, seed=1),
    GenerationRequest(prompt=BLUE, seed=2, negative_prompt=RED),
    GenerationRequest(prompt=BLUE, seed=3),
)
SHAPE = (12, 5, 8, 8)
HIGH, LOW = Expert.HIGH_NOISE, Expert.LOW_NOISE


@pytest.fixture(scope="module")
def places(release: Path) -> RunOptions:
    return RunOptions(locations=Locations((Location("test/tiny", release, "the test"),)))


@pytest.fixture(scope="module")
def pipeline(spec: InferSpec, places: RunOptions) -> Pipeline:
    return mm_infer.load(spec, options=places)


def drawn(requests: tuple[GenerationRequest, ...] = REQUESTS) -> Tensor:
    return torch.stack([torch.randn(SHAPE, generator=generator(one.seed, "latents")) for one in requests])


def features(spec: InferSpec, *texts: str) -> Tensor:
    return mm_models.build_text_encoder(spec.text_encoder).encode(list(texts))


def assert_same(videos: tuple[Video, ...], expected: tuple[Video, ...]) -> None:
    for video, other in zip(videos, expected, strict=True):
        assert video.request == other.request
        assert torch.equal(video.frames, other.frames)


def test_the_videos_are_those_of_its_parts_put_together_by_hand(
    spec: InferSpec, release: Path, places: RunOptions, pipeline: Pipeline
):
    networks = {expert: mm_models.build(spec.model, device="cpu") for expert in (HIGH, LOW)}
    for network, folder in zip(networks.values(), ("transformer", "transformer_2"), strict=True):
        mm_models.load(network, release / folder)
    text, negative = features(spec, RED, BLUE, BLUE), features(spec, "", RED, "")
    with torch.no_grad():
        made = denoise(drawn(), text, negative, by_networks(networks), spec.sampler, spec.boundary)
        expected = to_frames(mm_models.build_autoencoder(spec.autoencoder).decode(made))
    generated = mm_infer.generate(spec, REQUESTS, options=places)
    assert torch.equal(torch.stack([video.frames for video in generated]), expected)
    assert [video.request for video in generated] == list(REQUESTS)
    assert_same(pipeline(REQUESTS), generated)
    assert_same(pipeline(list(REQUESTS)), generated)
    assert torch.equal(pipeline.denoise(REQUESTS), made)
    assert torch.equal(to_frames(pipeline.decode(made)), expected)


def test_a_plain_prompt_is_a_request_of_seed_0(pipeline: Pipeline):
    assert_same(pipeline([RED]), pipeline([GenerationRequest(prompt=RED)]))


def test_own_latents_take_the_place_of_the_seeds(pipeline: Pipeline):
    expected = pipeline(REQUESTS)
    assert_same(pipeline(REQUESTS, latents=drawn()), expected)
    assert_same(pipeline(REQUESTS, latents=drawn().double()), expected)
    others = pipeline(REQUESTS, latents=drawn(REQUESTS[::-1]))
    assert not torch.equal(others[0].frames, expected[0].frames)


def test_a_generator_draws_the_noise_that_it_draws_for_diffusers(pipeline: Pipeline):
    noise = randn_tensor((3, *SHAPE), generator=torch.Generator().manual_seed(7), dtype=torch.float32)
    made = pipeline(REQUESTS, generator=torch.Generator().manual_seed(7))
    assert_same(made, pipeline(REQUESTS, latents=noise))


def test_own_features_take_the_place_of_the_prompts(spec: InferSpec, pipeline: Pipeline):
    text, negative = features(spec, RED, BLUE, BLUE), features(spec, "", RED, "")
    expected = pipeline(REQUESTS)
    assert_same(pipeline(REQUESTS, prompt_embeds=text, negative_prompt_embeds=negative), expected)
    assert_same(pipeline(REQUESTS, prompt_embeds=text), expected)
    assert_same(pipeline(REQUESTS, negative_prompt_embeds=negative), expected)
    for one in (
        pipeline(REQUESTS, prompt_embeds=torch.zeros_like(text)),
        pipeline(REQUESTS, negative_prompt_embeds=text),
    ):
        assert not torch.equal(one[1].frames, expected[1].frames)


def test_each_batch_gets_its_own_part_of_every_tensor(
    spec: InferSpec, places: RunOptions, pipeline: Pipeline
):
    text, negative = features(spec, BLUE, RED, RED), features(spec, RED, "", BLUE)
    given: dict[str, Any] = {"prompt_embeds": text, "negative_prompt_embeds": negative, "latents": drawn()}
    in_twos = mm_infer.load(replace(spec, "runtime.batch_size", 2), options=places)
    steps: list[tuple[int, int]] = []

    def on_step(step: int, sigma: float, expert: Expert, latents: Tensor) -> None:
        steps.append((step, len(latents)))

    made = in_twos.denoise(REQUESTS, on_step=on_step, **given)
    torch.testing.assert_close(made, pipeline.denoise(REQUESTS, **given), rtol=0, atol=1e-5)
    assert steps == [(step, size) for size in (2, 1) for step in range(6)]


def test_every_step_is_told_with_its_noise_level_its_expert_and_its_latents(pipeline: Pipeline):
    seen: list[tuple[int, float, Expert, Tensor]] = []
    made = pipeline.denoise(REQUESTS, on_step=lambda *step: seen.append(step))
    # 12 x / (1 + 11 x) of x = 0.999 (1 - k / 6), worked out by hand; the boundary is 0.875.
    levels = [0.999917, 0.983510, 0.959885, 0.922935, 0.856959, 0.705633]
    assert [step for step, *_ in seen] == list(range(6))
    assert [sigma for _, sigma, *_ in seen] == pytest.approx(levels, abs=1e-6)
    assert [expert for _, _, expert, _ in seen] == [HIGH] * 4 + [LOW] * 2
    assert all(latents.shape == (3, *SHAPE) for *_, latents in seen)
    assert torch.equal(seen[-1][3], made) and not torch.equal(seen[-2][3], made)
    told: list[Expert] = []
    pipeline(REQUESTS, on_step=lambda step, sigma, expert, latents: told.append(expert))
    assert told == [HIGH] * 4 + [LOW] * 2


def test_frames_are_float32_from_0_to_1_where_that_is_asked_for(pipeline: Pipeline):
    floats = pipeline(REQUESTS, output="float")
    for one, other in zip(floats, pipeline(REQUESTS), strict=True):
        assert one.frames.shape == (17, 64, 64, 3) and one.frames.dtype == torch.float32
        assert 0 <= float(one.frames.min()) < float(one.frames.max()) <= 1
        above = 255 * one.frames - other.frames
        assert 0 <= float(above.min()) <= float(above.max()) < 1
    floats[0].frames.requires_grad_()


def mistake(kind: type[Exception], call: Any, *args: Any, **given: Any) -> str:
    with pytest.raises(kind) as caught:
        call(*args, **given)
    assert type(caught.value) is kind
    return str(caught.value)


def test_an_argument_of_another_type_says_what_was_expected(spec: InferSpec, pipeline: Pipeline):
    for call in (mm_infer.load, lambda one: mm_infer.generate(one, [RED])):
        assert mistake(TypeError, call, {"steps": 4}) == "spec: expected InferSpec, got dict"
    wrong: dict[str, Any] = {"options": "runs"}
    assert mistake(TypeError, mm_infer.load, spec, **wrong) == "options: expected RunOptions, got str"
    expected = "prompts: expected a sequence of str or GenerationRequest, got"
    assert mistake(TypeError, pipeline, RED) == f"{expected} str; put it in a list"
    assert mistake(TypeError, pipeline, REQUESTS[0]) == f"{expected} GenerationRequest; put it in a list"
    assert mistake(TypeError, pipeline, {RED: 1}) == f"{expected} dict"
    assert (
        mistake(TypeError, mm_infer.generate, spec, [RED, 7])
        == "prompts[1]: expected str or GenerationRequest, got int"
    )
    found = mistake(TypeError, pipeline, REQUESTS, latents=drawn().numpy())
    assert found == "latents: expected Tensor, got ndarray"
    found = mistake(TypeError, pipeline, REQUESTS, prompt_embeds=torch.ones(3, 8, 64, dtype=torch.int64))
    assert found == "prompt_embeds: expected float32, got int64"
    assert mistake(TypeError, pipeline, [RED], generator=7) == "generator: expected Generator, got int"
    assert mistake(TypeError, pipeline, [RED], on_step=7) == "on_step: expected a function, got int"


def test_a_tensor_of_another_shape_says_which_one_was_expected(pipeline: Pipeline):
    found = mistake(ValueError, pipeline, REQUESTS, latents=drawn()[:2])
    expected = "latents: expected the shape [B, C, T, H, W] = [3, 12, 5, 8, 8], got"
    assert found == f"{expected} [2, 12, 5, 8, 8]"
    assert mistake(ValueError, pipeline.denoise, REQUESTS, latents=drawn()[0]) == f"{expected} [12, 5, 8, 8]"
    found = mistake(ValueError, pipeline, [RED], negative_prompt_embeds=torch.ones(1, 9, 64))
    assert found == "negative_prompt_embeds: expected the shape [B, L, D] = [1, 8, 64], got [1, 9, 64]"
    both = {"latents": drawn(), "generator": torch.Generator()}
    assert mistake(ValueError, pipeline, REQUESTS, **both).startswith("latents, generator: expected one")
    assert mistake(ValueError, pipeline, []) == "prompts: expected at least one, got none"
    assert (
        mistake(ValueError, pipeline, [RED], output="pil") == "output: expected 'uint8' or 'float', got 'pil'"
    )


def test_what_is_decoded_are_latents_of_the_autoencoder_that_have_values(pipeline: Pipeline):
    not_one: Any = [1]
    assert mistake(TypeError, pipeline.decode, not_one) == "latents: expected Tensor, got list"
    whole = torch.zeros(1, *SHAPE, dtype=torch.int64)
    assert mistake(TypeError, pipeline.decode, whole) == "latents: expected float32, got int64"
    for shape in ((3, 4), (3, 12), SHAPE, (1, 7, 5, 8, 8), (0, *SHAPE)):
        expected = f"latents: expected the shape [B, C, T, H, W] = [B, 12, T, H, W], got {list(shape)}"
        assert mistake(ValueError, pipeline.decode, torch.zeros(shape)) == expected
    on_meta = torch.zeros(1, *SHAPE, device="meta")
    for call in (pipeline.decode, lambda latents: pipeline([RED], latents=latents)):
        assert mistake(ValueError, call, on_meta) == "latents: expected a tensor with values, got one on meta"
    assert pipeline.decode(torch.zeros(1, 12, 2, 4, 8)).shape == (1, 3, 5, 32, 64)


def test_what_on_step_writes_into_latents_is_what_the_next_step_begins_with(pipeline: Pipeline):
    def still(step: int, sigma: float, expert: Expert, latents: Tensor) -> None:
        if step == 5:
            latents.zero_()

    assert not bool(pipeline.denoise([RED], on_step=still).any())


def test_options_that_only_a_run_could_heed_are_refused(spec: InferSpec, places: RunOptions):
    refused: dict[str, Any] = {"resume": "latest", "if_needed": True, "stop_after": 3, "requests": ()}
    refused["threads"] = Threads(1, 1)
    told = mistake(UserError, mm_infer.load, spec, attrs.evolve(places, **refused)).splitlines()
    assert {line.partition(":")[0] for line in told} == {f"options.{name}" for name in refused}
    assert "options.resume: loading starts no run, so there is none to resume" in told
    with pytest.raises(UserError, match=r"options\.if_needed"):
        mm_infer.generate(spec, [RED], attrs.evolve(places, if_needed=True))


def test_what_a_request_asks_in_vain_is_told_by_each_call(pipeline: Pipeline):
    assert mistake(UserError, pipeline, [RED, "red " * 40]).startswith("spec.text_encoder.max_tokens: ")
    sized = GenerationRequest(prompt=RED, height=65)
    assert mistake(UserError, pipeline.denoise, [RED, sized]).startswith("request 1.height: ")


def test_variables_that_a_spec_asks_for_are_no_others_in_the_environment(
    spec: InferSpec, places: RunOptions, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "1")
    asking = replace(spec, {"runtime.device": "auto", "runtime.npu": NpuSpec(task_queue=2)})
    assert "TASK_QUEUE_ENABLE=2" in mistake(UserError, mm_infer.load, asking, options=places)


def test_releases_are_found_where_commands_find_them(
    spec: InferSpec, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline
):
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    monkeypatch.chdir(tmp_path)
    assert_same(mm_infer.generate(spec, [RED]), pipeline([RED]))


def test_the_module_shows_what_it_has_and_imports_torch_on_first_use():
    code = "import sys, mm_infer; print(*dir(mm_infer)); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = {"GenerationRequest", "Pipeline", "Preview", "Video", "generate", "load"}
    parts = {
        "Encoded",
        "Generation",
        "Inputs",
        "by_networks",
        "denoised",
        "encoded",
        "file_names",
        "open_generation",
        "strips_of",
    }
    assert set(done.stdout.split()) == names | parts == set(dir(mm_infer))
    page = pydoc.plain(pydoc.render_doc(mm_infer))
    assert "<function" not in page
    for taught in ("prompt_embeds", "[B, C, T, H, W]", "on_step(step, sigma, expert, latents)", "load(spec"):
        assert taught in page
    with pytest.raises(AttributeError, match="no attribute 'generat'"):
        mm_infer.generat  # type: ignore[attr-defined]  # noqa: B018


def test_a_pipeline_and_a_video_are_shown_in_one_short_line(pipeline: Pipeline):
    (video,) = pipeline([RED])
    assert len(repr(pipeline)) < 200
    assert "frames=[17, 64, 64, 3] torch.uint8" in repr(video)
