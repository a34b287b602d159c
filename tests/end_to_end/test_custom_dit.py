"""A model whose spec and network no package knows of trains, stops, goes on, and makes videos."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import mm_infer.runner
from examples.custom_dit.spec import CustomDiTSpec
from experiments import custom_dit
from mm_config import dump, exact_hash, load, replace, spec_hash
from mm_config.cli.app import app
from mm_config.cli.targets import resolve
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.specs.datasets import ShapesSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.requests import SamplesSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import TrainedBy
from mm_data import read_comment
from mm_train.training import train

ROOT = Path(__file__).parents[2]
FILE = str(ROOT / "experiments" / "custom_dit.py")
STEPS, STOP = 6, 3
FAST: dict[str, Any] = {
    "model.num_layers": 2,
    "model.num_attention_heads": 2,
    "model.head_dim": 12,
    "model.ffn_dim": 32,
    "data.batch_size": 4,
    "data.dataset.clips_per_caption": 1,
    "schedule.steps": STEPS,
    "schedule.warmup_steps": 2,
    "checkpoint.every_steps": STOP,
    "runtime.device": "cpu",
}
SPEC: TrainSpec = replace(custom_dit.SPEC, {**FAST, "name": "custom_dit"})
FLAGS = [word for path, value in FAST.items() for word in (f"--spec.{path.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all runs, so that clips are rendered and encoded once."""
    return tmp_path_factory.mktemp("custom_dit") / "runs"


@pytest.fixture(scope="module")
def stopped(runs: Path) -> Path:
    """The folder of a training that stopped on its way; it ran unsharded and kept its activations."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    kept = replace(SPEC, "recompute.mode", Recompute.NONE)
    assert spec_hash(kept) == spec_hash(SPEC)
    try:
        train(kept, RunOptions(runs_dir=runs))
        with pytest.raises(StoppedEarly) as caught:
            train(SPEC, RunOptions(runs_dir=runs, stop_after=STOP))
    finally:
        torch.set_num_threads(before)
    return caught.value.run_dir


@pytest.fixture(scope="module")
def whole(runs: Path, stopped: Path) -> Path:
    """The folder of the training that ran through before."""
    (folder,) = (path.parent for path in runs.glob("*/*/result.json"))
    return folder


def python(runs: Path, *words: str, launcher: tuple[str, ...] = ()) -> str:
    """Standard output of a command, with the runs folder beside its other words."""
    done = subprocess.run(
        [sys.executable, *launcher, *words, "--runs-dir", str(runs)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_and_goes_on_where_it_stopped(runs: Path, whole: Path, stopped: Path) -> None:
    assert len(losses(stopped)) == STOP
    printed = python(runs, FILE, *FLAGS, "--resume", str(stopped))
    assert Path(printed.splitlines()[-1]).parent == stopped
    assert len(losses(stopped)) == STEPS
    assert losses(stopped) == losses(whole)
    assert len(set(losses(whole))) == STEPS


def test_two_ranks_with_sharded_recomputed_blocks_have_the_losses_of_one(
    tmp_path: Path, runs: Path, whole: Path
) -> None:
    (tmp_path / ".cache").symlink_to(runs / ".cache")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    printed = python(tmp_path, FILE, *FLAGS, launcher=torchrun)
    folder = Path(printed.splitlines()[-1]).parent
    assert load(folder / "spec.json").recompute.mode is Recompute.FULL
    assert losses(folder) == pytest.approx(losses(whole), rel=1e-5)


def test_a_stored_run_is_found_by_a_process_that_never_imported_its_class(runs: Path, whole: Path) -> None:
    script = (
        "import sys; from mm_config.cli.app import app; status = app(sys.argv[1:])\n"
        "assert 'experiments.custom_dit' not in sys.modules and 'torch' not in sys.modules\n"
        "raise SystemExit(status)"
    )
    shown = python(runs, "-c", script, "show", spec_hash(SPEC)[:12])
    assert "custom-dit" in shown and "model.head_dim" in shown
    found = resolve(spec_hash(SPEC), RunOptions(runs_dir=runs))
    assert isinstance(found, TrainSpec) and found.model == SPEC.model
    assert isinstance(found.model, CustomDiTSpec)


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_its_file_loads_back_with_the_same_hashes(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"spec.{ending}"
    dump(SPEC, file)
    assert load(file) == SPEC
    assert (spec_hash(load(file)), exact_hash(load(file))) == (spec_hash(SPEC), exact_hash(SPEC))


def test_verbs_know_the_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        ("plan",): "3,061,904",
        ("hash",): spec_hash(custom_dit.SPEC),
        ("show",): "custom-dit",
        ("show", "--format", "python"): "from examples.custom_dit.spec import CustomDiTSpec",
        ("diff", FILE, "--spec.model.ffn-dim", "768"): "spec.model.ffn_dim",
    }
    for (verb, *words), text in expected.items():
        given = [*words[:1], FILE, *words[1:]] if verb == "diff" else [FILE, *words]
        assert app([verb, *given]) == (1 if verb == "diff" else 0)
        assert text in capsys.readouterr().out, verb


def test_a_mistaken_pattern_or_degree_is_told_as_for_any_network(capsys: pytest.CaptureFixture[str]) -> None:
    mistakes = {
        ("--spec.fsdp.wrap", "block.*"): "spec.fsdp.wrap.0: 'block.*' matches no module; nearest: 'blocks",
        ("--spec.parallel.ulysses", "3"): "spec.parallel.ulysses: 3 ranks can't share the 4 heads",
        ("--spec.model.rope-max-seq-len", "2"): "spec.data.num_frames: makes 5 tokens along this axis",
        ("--spec.model.head-dim", "13"): "spec.model.head_dim: must be even",
    }
    for words, text in mistakes.items():
        assert app(["plan", FILE, *words]) == 2
        assert text in capsys.readouterr().err


def test_it_makes_videos_of_what_it_learnt(runs: Path, whole: Path) -> None:
    generation = custom_dit.FAMILY.infer(
        model=SPEC.model,
        high_noise=TrainedBy(spec=SPEC),
        low_noise=None,
        num_frames=17,
        height=64,
        width=64,
        fps=8,
        samples=SamplesSpec(prompts=ShapesSpec().captions[:2]),
    )
    outcome = mm_infer.runner.run(
        replace(generation, "sampler.steps", 3), RunOptions(runs_dir=runs, argv=("custom_dit",))
    )
    result = json.loads(outcome.result_path.read_text())
    videos = [Path(video["path"]) for video in result["videos"]]
    assert len({video.read_bytes() for video in videos}) == 2
    assert all(json.loads(read_comment(video))["spec_hash"] == result["spec_hash"] for video in videos)
    assert "custom-dit" in python(runs, "-m", "mm_config", "show", result["spec_hash"][:12])
