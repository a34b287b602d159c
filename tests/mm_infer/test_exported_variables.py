"""`mm generate` exports what the spec asks for, as a run does."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_config import dump, replace
from mm_config.cli.app import app
from mm_config.specs.infer import InferSpec
from mm_config.specs.npu import NpuSpec


def test_a_shell_that_says_something_else_stops_a_generation(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    random_spec: InferSpec,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "1")
    changes = {"runtime.device": "auto", "runtime.npu": NpuSpec(task_queue=2)}
    dump(replace(random_spec, changes), tmp_path / "spec.json")
    out = tmp_path / "video.mp4"
    words = (
        "generate",
        str(tmp_path / "spec.json"),
        "--prompt",
        "a red circle moving right",
        "--out",
        str(out),
    )
    assert app(words) == 2
    assert capsys.readouterr().err.startswith("spec.runtime.npu.task_queue: asks for TASK_QUEUE_ENABLE=2")
    assert not out.exists()
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "2")
    assert app((*words, "--spec.sampler.steps", "1")) == 0
    assert out.exists()
