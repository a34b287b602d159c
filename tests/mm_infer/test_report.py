"""The commands that a run suggests are commands that can be typed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mm_config import replace, spec_hash
from mm_config.options.run_options import RunOptions
from mm_config.specs.infer import InferSpec
from mm_infer.report import next_commands

TRAININGS = {
    "high_noise": {"spec_hash": "a" * 64, "run_dir": "runs/tiny_high/1"},
    "low_noise": {"spec_hash": "b" * 64, "run_dir": "runs/tiny_low/1"},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "experiments").mkdir()
    for name in ("tiny", "tiny_high", "tiny_low"):
        (tmp_path / "experiments" / f"{name}.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    return tmp_path


def test_next_commands_name_the_experiments_that_were_run(project: Path, spec: InferSpec):
    options = RunOptions(argv=("experiments/tiny.py",))
    quoted = replace(spec, "samples.prompts", ("it's red",))
    assert list(next_commands(quoted, options, TRAININGS)) == [
        """mm generate experiments/tiny.py --prompt 'it'"'"'s red' --seed 7 --out video.mp4""",
        f"mm diff {'a' * 12} {'b' * 12}",
        "python experiments/tiny.py --spec.steps 12",
        "python experiments/tiny_high.py --spec.lr 1e-3",
    ]


def test_without_an_experiment_file_the_hash_is_the_target(project: Path, spec: InferSpec):
    options = RunOptions(runs_dir=project / "elsewhere")
    (command,) = next_commands(spec, options, {})
    assert command.startswith(f"mm generate {spec_hash(spec)[:12]} --prompt ")
    assert command.endswith("--runs-dir elsewhere")
