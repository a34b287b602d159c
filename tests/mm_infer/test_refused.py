"""What a generation can't do is a line each on the command line, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mm_config
from mm_config import replace
from mm_config.cli.app import app
from mm_config.cli.main import main
from mm_config.specs import (
    AppliedLoraSpec,
    FeatureCacheSpec,
    GuidanceMode,
    InferSpec,
    ReleasedWeights,
    RequestSetting,
    Residency,
)
from mm_data import write_mp4

ASKED = ("--prompt", "a red circle moving right", "--out", "x.mp4")
BESIDE = {"loras": (AppliedLoraSpec(high_noise=ReleasedWeights(name="test/lora"), merge=False),)}
LAYERWISE = {"runtime.residency.experts": Residency.LAYERWISE, "runtime.residency.prefetch": 0}
CACHED = {
    "sampler.steps": 12,
    "sampler.guidance_interval": (0.0, 0.95),
    "feature_cache": FeatureCacheSpec(skipped=()),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: InferSpec, release: Path) -> Path:
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "world", "starts", "says"),
    [
        (
            {**BESIDE, "runtime.parallel.tensor": 2},
            2,
            "spec.loras.0.merge: is false, but with runtime.parallel.tensor 2 no rank has a whole layer",
            "true adds it to their weights",
        ),
        (
            {**BESIDE, "runtime.parallel.fsdp": True, "runtime.parallel.ulysses": 2},
            2,
            "spec.loras.0.merge: is false, but with runtime.parallel.fsdp true no rank has a whole layer",
            "true adds it to their weights",
        ),
        (
            {**CACHED, "runtime.guidance": GuidanceMode.PARALLEL},
            2,
            "spec.runtime.guidance: is parallel, but in steps without guidance a feature cache needs",
            "batched or sequential",
        ),
        (
            {**LAYERWISE, "runtime.residency.share": 0.0},
            1,
            "spec.runtime.residency.share: is 0: no block waits, as with experts = resident",
            "raise it",
        ),
        (
            {**LAYERWISE, "runtime.parallel.fsdp": True, "runtime.parallel.ulysses": 2},
            2,
            "spec.runtime.residency.experts: is layerwise, but spec.runtime.parallel.fsdp has a rank hold",
            "turn one of them off",
        ),
        ({"num_frames": 82}, 1, "spec.num_frames:", "81"),
        ({"num_frames": 83}, 1, "spec.num_frames:", "85"),
        ({"height": 65}, 1, "spec.height:", "64"),
        ({"distilled": True}, 1, "spec.sampler.guidance", "distilled"),
        ({"runtime.parallel.ulysses": 3}, 1, "spec.runtime.parallel", ""),
    ],
)
def test_a_generation_that_can_not_be_is_a_line(
    changes: dict[str, object],
    world: int,
    starts: str,
    says: str,
    place: Path,
    spec: InferSpec,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mm_config.dump(replace(spec, changes), place / "spec.json")
    monkeypatch.setenv("WORLD_SIZE", str(world))
    monkeypatch.setenv("RANK", "0")
    if world == 1:
        assert app(["generate", "spec.json", *ASKED]) == 2
    else:  # Ranks that refuse have met before, so an experiment's own check stands for them.
        with pytest.raises(SystemExit, match="2"):
            main(mm_config.load("spec.json"), ["spec.py", "--dry-run"])
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith(starts) and says in line for line in lines)
    assert not (place / "runs").exists() and not (place / "x.mp4").exists()


def test_latents_are_decoded_by_one_process(
    place: Path, spec: InferSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mm_config.dump(replace(spec, {"sampler.steps": 1, "num_frames": 5}), place / "spec.json")
    assert app(["generate", "spec.json", *ASKED]) == 0
    (latents,) = (place / "runs").glob("*/*/latents/*.safetensors")
    capsys.readouterr()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert app(["generate", "--decode", str(latents), "--out", "y.mp4"]) == 2
    assert capsys.readouterr().err == "--decode: is the work of one process; start it without torchrun\n"


def test_what_a_request_asks_for_in_vain_is_a_line(
    place: Path, spec: InferSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short video, a guidance of no expert, weights of another shape."""
    write_mp4(place / "short.mp4", np.zeros((3, 64, 64, 3), np.uint8), 8.0)
    alone = {"boundary": None, "low_noise": None, "sampler.guidance_low_noise": 3.0}
    free = {"requests_may_set": (RequestSetting.SAMPLER,)}
    wider = {"model.ffn_dim": 64}
    mm_config.dump(spec, place / "spec.json")
    mm_config.dump(replace(spec, {**alone, **free}), place / "alone.json")
    mm_config.dump(replace(spec, wider), place / "wider.json")
    for words, says in (
        (("spec.json", "--video", "short.mp4", "--strength", "0.5"), "has 3 frames, but 17 are asked for"),
        (("alone.json", "--guidance-low-noise", "2"), "there is no low-noise expert"),
        (("wider.json",), "ffn"),
    ):
        assert app(["generate", *words, *ASKED]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert any(says in line for line in lines) and not any("Traceback" in line for line in lines)
        assert not (place / "x.mp4").exists()
