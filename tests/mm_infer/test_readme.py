"""What the package's README shows of Python does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import tiny
from mm_config.specs.infer import InferSpec

README = Path(__file__).parents[2] / "packages" / "mm_infer" / "README.md"


def test_the_example_runs(random_spec: InferSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    monkeypatch.setattr(tiny, "SPEC", random_spec)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    frames = names["video"].frames
    assert frames.shape == (17, 64, 64, 3) and frames.dtype == torch.float32
    assert names["latents"].shape == (2, 12, 5, 8, 8)
    assert [expert for _, expert in names["steps"]] == ["high_noise"] * 4 + ["low_noise"] * 2
