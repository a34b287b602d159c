"""Latents are on the disk before they are decoded, and a video is made of them once a decode has failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mm_infer
import mm_models
from mm_config import dump, replace, spec_hash
from mm_config.cli.app import app
from mm_config.options.locations import load_locations
from mm_config.options.run_options import RunOptions
from mm_config.running import runners
from mm_config.runs.index import open_index
from mm_config.specs import GenerationRequest, InferSpec
from mm_config.stored.json_files import read_json
from mm_config.stored.mp4 import frames_digest
from mm_data import read_comment, read_mp4
from mm_models.autoencoders.dct import DctAutoencoder

RED, BLUE = "a red circle moving right", "a blue square moving up"


@pytest.fixture
def tiny(spec: InferSpec) -> InferSpec:
    small = {"name": "tiny", "num_frames": 9, "height": 32, "width": 32, "sampler.steps": 2}
    return replace(spec, {**small, "samples.prompts": (RED, BLUE), "samples.seeds": (5,)})


@pytest.fixture
def place(tiny: InferSpec, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    dump(tiny, tmp_path / "tiny.json")
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(*words: object) -> int:
    return app(["generate", *map(str, words)])


@pytest.fixture
def failed(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a run whose decode ran out of memory in the middle of its video."""

    def too_much(self: DctAutoencoder, latents: torch.Tensor):
        yield torch.zeros(1, 3, 1, 32, 32)
        raise MemoryError("the device is full")

    with monkeypatch.context() as patch:
        patch.setattr(DctAutoencoder, "decode_slices", too_much)
        assert generate("tiny.json", "--prompt", RED, "--seed", 3, "--out", "a.mp4") != 0
    assert not (place / "a.mp4").exists()
    return capsys.readouterr().err


@pytest.fixture
def kept(failed: str, place: Path) -> Path:
    """The latents of that run."""
    (found,) = place.glob("runs/tiny/*/latents/*")
    return found


def test_a_decode_that_fails_names_the_latents_and_how_to_go_on(
    kept: Path, failed: str, tiny: InferSpec
) -> None:
    assert f"mm generate --decode {kept} --out video.mp4 goes on from them" in failed
    assert kept.name == "a-red-circle-moving-right-3.safetensors"
    (latents,) = load_file(kept).values()
    pipeline = mm_infer.load(tiny, RunOptions(locations=load_locations()))
    request = GenerationRequest(prompt=RED, seed=3)
    assert torch.equal(latents, pipeline.denoise([request])[0])


def test_kept_latents_become_the_video_that_the_run_would_have_made(
    kept: Path, place: Path, tiny: InferSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate("tiny.json", "--prompt", RED, "--seed", 3, "--out", "whole.mp4") == 0
    assert generate("--decode", kept, "--out", "b.mp4") == 0
    assert frames_digest(Path("b.mp4")) == frames_digest(Path("whole.mp4"))
    said = json.loads(read_comment(Path("b.mp4")))
    assert said["spec_hash"] == spec_hash(tiny) and said["request"]["spec"]["seed"] == 3
    folder = place / "runs" / said["run"]["id"]
    inputs = read_json(folder / "inputs.json")
    assert kept.name in json.dumps(inputs)
    result = read_json(folder / "result.json")
    assert result["videos"][0]["latents"] == str(kept.absolute())
    assert result["made_of"] == said["made_of"]
    capsys.readouterr()
    for file in ("b.mp4", kept):
        assert app(["show", str(file), "--format", "flat"]) == 0
        assert f"request.prompt = '{RED}'" in capsys.readouterr().out
    assert app(["reproduce", "b.mp4"]) == 0


def test_decoding_may_be_said_anew_but_not_what_is_over(kept: Path, tiny: InferSpec, capsys) -> None:
    assert generate("--decode", kept, "--out", "c.mp4", "--spec.fps", 4) == 0
    said = json.loads(read_comment(Path("c.mp4")))
    assert said["spec_hash"] == spec_hash(replace(tiny, "fps", 4))
    assert generate("--decode", kept, "--out", "d.mp4", "--spec.shift", 3, "--prompt", BLUE) == 2
    told = capsys.readouterr().err
    assert "--prompt: has no part in --decode; leave it out\n" in told
    assert generate("--decode", kept, "--out", "d.mp4", "--spec.shift", 3) == 2
    told = capsys.readouterr().err
    assert told.endswith(
        "spec.sampler.shift: can't be changed with --decode: the latents are denoised already\n"
    )


def _cut(file: Path) -> str:
    file.write_bytes(file.read_bytes()[:-4])
    return "can't be read: "


def _turn_a_bit(file: Path) -> str:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    return "is damaged: its values are not those that were written"


def _drop_the_comment(file: Path) -> str:
    save_file(load_file(file), file)
    return "holds no latents of a generation: its header says of no run"


def _remove(file: Path) -> str:
    file.unlink()
    return ""


@pytest.mark.parametrize("damage", [_cut, _turn_a_bit, _drop_the_comment, _remove])
def test_damaged_latents_are_refused_by_name(damage: Callable[[Path], str], kept: Path, capsys) -> None:
    expected = damage(kept)
    capsys.readouterr()
    assert generate("--decode", kept, "--out", "d.mp4") == 2
    told = capsys.readouterr().err
    assert f"{kept}: {expected}" in told and told.count("\n") == 1
    assert not Path("d.mp4").exists()


def test_latents_of_another_autoencoder_are_refused(kept: Path, capsys) -> None:
    words = ("--spec.autoencoder.latent-channels", 10)
    assert generate("--decode", kept, "--out", "d.mp4", *words) == 2
    assert "latent_channels" in capsys.readouterr().err


def test_every_video_of_a_run_keeps_its_latents(place: Path, tiny: InferSpec) -> None:
    outcome = runners.run(tiny, RunOptions(locations=load_locations()))
    videos = read_json(outcome.result_path)["videos"]
    for video in videos:
        latents = load_file(video["latents"])["latents"]
        assert latents.shape == (12, 3, 4, 4) and latents.dtype == torch.float32
        whole = mm_models.build_autoencoder(tiny.autoencoder).decode(latents[None])
        assert read_mp4(Path(video["path"])).shape[0] == whole.shape[2] == 9
    assert len({video["latents"] for video in videos}) == 2
    assert len(open_index(Path("runs")).list()) == 1
