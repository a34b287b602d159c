"""Generation that begins with an image: what its videos are, which depend on it, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

import mm_config
from mm_config import replace
from mm_config.cli.app import app
from mm_config.options.run_options import RunOptions
from mm_config.running import runners
from mm_config.runs import read_inputs
from mm_config.specs import Conditioning, GenerationRequest, InferSpec, SamplesSpec
from mm_data import read_comment
from mm_infer import load
from mm_infer.images import frames_of

PROMPT = "a red circle moving right"


@pytest.fixture
def clean(spec: InferSpec) -> InferSpec:
    """Networks that are given a clean first frame, or none."""
    small = {"num_frames": 5, "sampler.steps": 2, "runtime.batch_size": 3}
    return replace(spec, {**small, "model.conditioning": Conditioning.CLEAN_FIRST_FRAME})


def image(path: Path, height: int = 64, width: int = 64, seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return str(path)


def test_a_clean_frame_is_the_round_trip_of_its_image(clean: InferSpec, options: RunOptions, tmp_path: Path):
    request = GenerationRequest(prompt=PROMPT, image=image(tmp_path / "a.png"))
    pipeline = load(clean, options)
    seen: list[torch.Tensor] = []
    latents = pipeline.denoise([request], on_step=lambda *step: seen.append(step[3].clone()))
    frame = frames_of(clean, request)[0][None, :, None]
    encoded = pipeline.autoencoder.encode(frame)
    assert all(torch.equal(one[:, :, :1], encoded) for one in (*seen, latents))
    assert float((latents[:, :, 1:] - pipeline.denoise([PROMPT])[:, :, 1:]).abs().max()) > 0.01
    (video,) = pipeline([request])
    alone = pipeline.decode(encoded)[0, :, 0].permute(1, 2, 0)
    shown = (alone / 2 + 0.5).clamp(0, 1) * 255
    assert float((video.frames[0] - shown).abs().max()) <= 1


def test_videos_of_several_sizes_are_those_made_alone(clean: InferSpec, options: RunOptions, tmp_path: Path):
    wide = image(tmp_path / "wide.png", 32, 128)
    square = [image(tmp_path / f"{seed}.png", seed=seed) for seed in (1, 2)]
    files = (wide, wide, *square, None, wide)
    requests = [GenerationRequest(prompt=PROMPT, seed=seed, image=file) for seed, file in enumerate(files)]
    pipeline = load(clean, options)
    together = pipeline(requests)
    assert [video.request for video in together] == requests
    wide_shape, square_shape = (5, 32, 128, 3), (5, 64, 64, 3)
    shapes = [wide_shape, wide_shape, square_shape, square_shape, square_shape, wide_shape]
    assert [tuple(video.frames.shape) for video in together] == shapes
    for video in together:
        (alone,) = pipeline([video.request])
        assert int((alone.frames.int() - video.frames.int()).abs().max()) <= 1
    with pytest.raises(ValueError, match="prompts: they make videos of several sizes"):
        pipeline.denoise(requests)
    with pytest.raises(ValueError, match="generator: the requests make videos of several sizes"):
        pipeline(requests, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"latents: expected the shape .* = \[2, 12, 2, 4, 16\]"):
        pipeline(requests[:2], latents=torch.zeros(2, 12, 2, 8, 8))


def test_the_content_of_given_images_is_part_of_what_a_run_is_made_of(
    clean: InferSpec, options: RunOptions, tmp_path: Path
):
    file = image(tmp_path / "a.png")
    samples = SamplesSpec(prompts=(PROMPT,), images=(file,), seeds=(1, 2))
    own = replace(clean, "samples", samples)
    asked = attrs.evolve(options, requests=(GenerationRequest(prompt=PROMPT, image=file),))
    made: list[list[str]] = []
    for seed in (0, 0, 1):
        image(tmp_path / "a.png", seed=seed)
        told: list[str] = []
        for said, path in ((options, "spec.samples.images.0"), (asked, "requests.0.image")):
            outcome = runners.run(own, said)
            inputs = read_inputs(outcome.run_dir)
            assert inputs is not None and path in inputs
            result = json.loads(outcome.result_path.read_text())
            (name, *_) = (one["path"] for one in result["videos"])
            assert json.loads(read_comment(Path(name)) or "")["made_of"] == result["made_of"]
            told.append(result["made_of"])
        made.append(told)
    assert made[0] == made[1]
    assert not {*made[0]} & {*made[2]}


def test_generate_takes_one_image_for_all_prompts_or_one_for_each(
    clean: InferSpec,
    release: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    mm_config.dump(clean, tmp_path / "spec.json")
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    first, second = Path(image(tmp_path / "a.png")).name, Path(image(tmp_path / "b.png", seed=1)).name
    words = [
        "generate",
        "spec.json",
        "--prompt",
        PROMPT,
        "--prompt",
        "a blue square moving up",
        "--out",
        "made",
    ]
    assert app([*words, "--image", first]) == 0
    made = [read_comment(path) or "" for path in sorted((tmp_path / "made").iterdir())]
    assert [json.loads(one)["request"]["spec"]["image"] for one in made] == [first, first]
    assert app([*words, "--image", first, "--image", second, "--force"]) == 0
    made = [read_comment(path) or "" for path in sorted((tmp_path / "made").iterdir())]
    # In the order of the files' names, blue comes first.
    assert [json.loads(one)["request"]["spec"]["image"] for one in made] == [second, first]
    capsys.readouterr()
    three = ["--image", first, "--image", first, "--image", first]
    assert app([*words, "--force", *three, "--last-image", first, "--image", "no.png"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "--image: names 4 files for 2 prompts; give one for all, or one for each"
    ]
    assert app([*words, "--force", "--image", "no.png"]) == 2
    assert capsys.readouterr().err.splitlines() == ["request 0.image: no.png: there is no such file"]


def test_a_repetition_tells_that_an_image_is_another(
    clean: InferSpec,
    release: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    mm_config.dump(clean, tmp_path / "spec.json")
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    words = [
        "generate",
        "spec.json",
        "--prompt",
        PROMPT,
        "--image",
        image(tmp_path / "a.png"),
        "--out",
        "a.mp4",
    ]
    assert app(words) == 0
    capsys.readouterr()
    assert app(["reproduce", "a.mp4"]) == 0
    assert "requests.0.image" not in capsys.readouterr().out
    image(tmp_path / "a.png", seed=1)
    assert app(["reproduce", "a.mp4"]) == 1
    told = capsys.readouterr()
    assert "data requests.0.image" in told.out + told.err, told
