"""From nothing to a measured video with one command, and from there to the next run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mm_data import read_comment

FAST_EXPERIMENT = """
from experiments import tiny, tiny_high, tiny_low
from mm_config import main, replace
from mm_config.specs.weights import TrainedBy

FAST = {
    "schedule.steps": 4,
    "schedule.warmup_steps": 1,
    "data.batch_size": 8,
    "data.dataset.clips_per_caption": 1,
    "model.hidden_size": 32,
    "model.num_attention_heads": 2,
    "model.num_layers": 1,
    "model.ffn_dim": 32,
}
HIGH = replace(tiny_high.SPEC, FAST)
LOW = replace(tiny_low.SPEC, {**FAST, "start_from": TrainedBy(spec=HIGH)})
MODEL = {path: value for path, value in FAST.items() if path.startswith("model.")}
SPEC = replace(
    tiny.SPEC,
    {
        **MODEL,
        "high_noise": TrainedBy(spec=HIGH),
        "low_noise": TrainedBy(spec=LOW),
        "sampler.steps": 4,
        "samples.prompts": tiny.SPEC.samples.prompts[:2],
        "samples.seeds": (1001,),
    },
)

if __name__ == "__main__":
    main(SPEC)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first_video") / "my videos"
    folder.mkdir()
    (folder / "fast.py").write_text(FAST_EXPERIMENT)
    return folder


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_line(place, shlex.join([sys.executable, *arguments]))


def run_line(place: Path, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def first(place: Path) -> tuple[str, dict]:
    done = run(place, "fast.py")
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(Path(done.stdout.splitlines()[-1]).read_text())


def test_last_line_names_a_result_with_score_and_videos(first: tuple[str, dict]) -> None:
    _, result = first
    assert set(result["score"]) == {"colour", "shape", "direction"}
    assert all(0 <= share <= 1 for share in result["score"].values())
    assert 0 < result["peak_gib"] < 4
    assert result["seconds"] > 0
    assert [video["seed"] for video in result["videos"]] == [1001, 1001]
    for video in result["videos"]:
        assert Path(video["path"]).stat().st_size > 0


def test_each_training_has_its_run_folder(place: Path, first: tuple[str, dict]) -> None:
    kinds = {}
    for path in place.glob("runs/*/*/result.json"):
        kinds.setdefault(json.loads(path.read_text())["kind"], []).append(path.parent)
    assert len(kinds["train"]) == 2
    assert len(kinds["infer"]) == 1
    for folder in kinds["train"]:
        assert (folder / "spec.json").exists()
        assert (folder / "provenance.json").exists()
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_second_run_trains_nothing_and_makes_the_same_video(place: Path, first: tuple[str, dict]) -> None:
    trained = set(place.glob("runs/*/*/metrics.jsonl"))
    done = run(place, "fast.py")
    assert done.returncode == 0, done.stderr
    assert set(place.glob("runs/*/*/metrics.jsonl")) == trained
    again = json.loads(Path(done.stdout.splitlines()[-1]).read_text())
    for one, other in zip(first[1]["videos"], again["videos"], strict=True):
        assert one["frames"] == other["frames"]


def test_the_suggested_commands_work_as_they_are_printed(place: Path, first: tuple[str, dict]) -> None:
    stdout, result = first
    lines = stdout.splitlines()
    # The trainings that the run started suggested commands too; the run's own come last.
    start = len(lines) - lines[::-1].index("Next, for example:")
    generate, compare, again = (run_line(place, line) for line in lines[start:-1])
    assert generate.returncode == 0, generate.stderr
    assert json.loads(read_comment(place / "video.mp4"))["spec_hash"] == result["spec_hash"]
    assert compare.returncode == 1, compare.stderr
    assert re.search(r"spec\.expert +high_noise -> low_noise", compare.stdout)
    assert again.returncode == 0, again.stderr


def test_a_run_is_found_by_a_prefix_of_its_hash(place: Path, first: tuple[str, dict]) -> None:
    spec_hash = first[1]["spec_hash"]
    done = run(place, "-m", "mm_config", "hash", spec_hash[:8])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"spec {spec_hash}"


def test_without_build_missing_the_error_names_the_command(place: Path, tmp_path: Path) -> None:
    done = run(place, "fast.py", "--spec.runtime.no-build-missing", "--runs-dir", str(tmp_path / "empty"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "spec.high_noise" in done.stderr
    assert "build_missing" in done.stderr
