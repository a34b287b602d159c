"""What requests choose is what makes their videos, alone and beside others, and what files say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from mm_config import dump, replace
from mm_config.cli.app import app
from mm_config.options.run_options import RunOptions
from mm_config.schema import UserError
from mm_config.specs import Expert, GenerationRequest, InferSpec, RequestSetting, SamplerSpec, Solver
from mm_data import read_comment, read_mp4, write_mp4
from mm_infer import load
from mm_infer.denoise import denoise, rescaled
from mm_infer.passes import Branch, Pass
from mm_infer.requests import Inputs

RED, BLUE = "a red circle moving right", "a blue square moving up then left"


@pytest.fixture(scope="module")
def open_spec(spec: InferSpec) -> InferSpec:
    """A spec that leaves everything to its requests."""
    small = {"num_frames": 5, "height": 32, "width": 32, "sampler.steps": 3}
    return replace(spec, {**small, "requests_may_set": tuple(RequestSetting)})


def test_a_chosen_setting_makes_the_video_of_a_spec_that_has_it(
    open_spec: InferSpec, options: RunOptions
) -> None:
    pipeline = load(open_spec, options)
    cases: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
        ({"num_frames": 9}, {"num_frames": 9}),
        ({"height": 64, "width": 96}, {"height": 64, "width": 96}),
        (
            {"steps": 4, "solver": Solver.DPMPP_2M, "shift": 3.0},
            {"sampler.steps": 4, "sampler.solver": Solver.DPMPP_2M, "sampler.shift": 3.0},
        ),
        ({"guidance_high_noise": 6.0}, {"sampler.guidance_high_noise": 6.0}),
    )
    for fields, changes in cases:
        (chosen,) = pipeline([GenerationRequest(prompt=RED, seed=5, **fields)])
        (own,) = load(replace(open_spec, changes), options)([GenerationRequest(prompt=RED, seed=5)])
        assert torch.equal(chosen.frames, own.frames), fields


def test_requests_of_one_making_share_a_batch_and_all_videos_are_those_made_alone(
    open_spec: InferSpec, options: RunOptions
) -> None:
    asked = (
        GenerationRequest(prompt=RED, seed=1),
        GenerationRequest(prompt=BLUE, seed=2, num_frames=5, steps=3),
        GenerationRequest(prompt=RED, seed=3, num_frames=9),
        GenerationRequest(prompt=RED, seed=4, num_frames=9, steps=2),
    )
    assert [len(batch.requests) for batch in Inputs(asked).batches(open_spec)] == [2, 1, 1]
    pipeline = load(open_spec, options)
    for request, together in zip(asked, pipeline(asked), strict=True):
        (alone,) = pipeline([request])
        assert together.frames.shape == alone.frames.shape
        # Rounding to 8 bits can turn a difference of 1e-6 into one level.
        assert int((together.frames.int() - alone.frames.int()).abs().max()) <= 1
    with pytest.raises(ValueError, match="they make videos of several sizes"):
        pipeline.denoise(asked)


def test_a_file_says_what_was_chosen_and_is_reproduced(
    open_spec: InferSpec,
    release: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    dump(open_spec, tmp_path / "spec.json")
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    draws = np.random.default_rng(1)
    write_mp4(tmp_path / "given.mp4", draws.integers(0, 256, (7, 32, 64, 3), np.uint8), 8.0)
    words = ["--prompt", RED, "--size", "64x32", "--frames", "5", "--steps", "4", "--solver", "euler"]
    words += ["--video", "given.mp4", "--strength", "0.5", "--guidance", "2.5"]
    assert app(["generate", "spec.json", *words, "--out", "made.mp4"]) == 0
    said = json.loads(read_comment(tmp_path / "made.mp4"))["request"]["spec"]
    chosen = ("width", "height", "num_frames", "steps", "solver", "strength", "guidance_high_noise")
    assert [said[name] for name in chosen] == [64, 32, 5, 4, "euler", 0.5, 2.5]
    assert read_mp4(tmp_path / "made.mp4").shape == (5, 32, 64, 3)
    (stored,) = (tmp_path / "runs").glob("*/*/inputs.json")
    assert "requests.0.video" in stored.read_text()
    assert app(["show", "made.mp4"]) == 0
    assert app(["reproduce", "made.mp4"]) == 0, capsys.readouterr()
    write_mp4(tmp_path / "given.mp4", draws.integers(0, 256, (7, 32, 64, 3), np.uint8), 8.0)
    assert app(["reproduce", "made.mp4"]) != 0


def test_a_video_that_is_too_short_or_none_is_one_line(
    open_spec: InferSpec, options: RunOptions, tmp_path: Path
) -> None:
    short, none = tmp_path / "short.mp4", tmp_path / "none.mp4"
    write_mp4(short, np.zeros((4, 32, 32, 3), np.uint8), 8.0)
    none.write_text("no video")
    for file, said in (
        (short, f"request 0.video: {short}: has 4 frames, but 5 are asked for; ask for fewer"),
        (none, f"request 0.video: {none}: "),
        (tmp_path / "gone.mp4", f"request 0.video: {tmp_path / 'gone.mp4'}: there is no such file"),
    ):
        with pytest.raises(UserError) as caught:
            load(open_spec, options)([GenerationRequest(prompt=RED, video=str(file), strength=0.7)])
        (problem,) = caught.value.problems
        assert str(problem).startswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "832"], "--size: expected WIDTHxHEIGHT in pixels such as 832x480, got '832'"),
        (["--strength", "1.5"], "--strength: expected a number above 0 and at most 1, got '1.5'"),
        (["--guidance", "x"], "--guidance: expected a number at least 1, got 'x'"),
        (["--resolution", "480"], "--resolution: expected one of 480p, 720p, got '480'; did you mean 480p?"),
        (["--frames", "82"], "request 0.num_frames: 82 frames are not of the form 4k+1; nearest: 81 or 85"),
        (["--strength", "0.5"], "request 0.video: is missing: strength 0.5 needs a video to put noise on"),
        (
            ["--size", "64x40"],
            "request 0.height: 40 pixels are no multiple of 32; nearest: 32 or 64",
        ),
    ],
)
def test_each_mistake_of_a_command_line_is_one_line(
    words: list[str],
    said: str,
    open_spec: InferSpec,
    release: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    dump(open_spec, tmp_path / "spec.json")
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    assert app(["generate", "spec.json", "--prompt", RED, *words, "--out", "made.mp4"]) == 2
    assert capsys.readouterr().err.splitlines() == [said]


def test_rescaled_guidance_is_that_of_diffusers() -> None:
    draws = torch.Generator().manual_seed(2)
    mixed, conditional = (torch.randn(2, 3, 4, 5, 6, generator=draws) * size for size in (3.0, 1.0))
    for share in (0.3, 0.7, 1.0):
        expected = rescale_noise_cfg(mixed, conditional, share)
        torch.testing.assert_close(rescaled(mixed, conditional, share), expected, rtol=1e-6, atol=1e-6)


def passes(sampler: SamplerSpec) -> list[Branch]:
    """The texts of each pass of a walk, over a network that tells the two apart."""
    made: list[Branch] = []

    def forward(which: Pass, latents: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        made.append(which.branch)
        return latents

    noise, text = torch.ones(1, 2, 2, 2, 2), torch.zeros(1, 1, 1)
    noise[0, 0, 0, 0, 0] = 3
    assert denoise(noise, text, text, forward, sampler, None, batched=False).isfinite().all()
    return made


def test_outside_of_the_interval_only_the_prompt_is_passed() -> None:
    sampler = SamplerSpec(steps=4, shift=1.0, guidance_high_noise=4.0)
    # Levels 0.999, 0.749, 0.4995, 0.249.
    both = [Branch.PROMPT, Branch.NEGATIVE]
    assert passes(sampler) == both * 4
    assert passes(replace(sampler, "guidance_interval", (0.3, 0.8))) == [
        Branch.PROMPT,
        *both,
        *both,
        Branch.PROMPT,
    ]
    off = replace(sampler, {"guidance_high_noise": 1.0, "guidance_rescale": 0.7})
    assert passes(off) == [Branch.PROMPT] * 4
    assert sampler.guidance_at(1.0, Expert.LOW_NOISE) == 3.0
