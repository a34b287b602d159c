"""A small spec of released weights, in a folder in which commands start."""

from __future__ import annotations

from pathlib import Path

import pytest

import mm_config
from mm_config.specs import Conditioning, InferSpec, RequestSetting


@pytest.fixture
def place(spec: InferSpec, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, with `spec.json` of a network that takes a first frame, and its release's location."""
    monkeypatch.chdir(tmp_path)
    small = {
        "num_frames": 5,
        "sampler.steps": 2,
        "runtime.batch_size": 2,
        "model.conditioning": Conditioning.CLEAN_FIRST_FRAME,
        "requests_may_set": (RequestSetting.SAMPLER, RequestSetting.FRAMES, RequestSetting.STEPS),
    }
    mm_config.dump(mm_config.replace(spec, small), tmp_path / "spec.json")
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    return tmp_path
