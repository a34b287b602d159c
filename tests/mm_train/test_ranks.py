"""Trainings on two gloo ranks, started by torchrun as a user starts them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

import mm_train
from mm_config import dump, replace
from mm_config.options import RunOptions
from mm_config.runs.folder import attach
from mm_config.runs.record import RunStatus
from mm_config.specs.data import Cache, ManifestSpec
from mm_config.specs.train import TrainSpec
from mm_models import checkpoint

Losses = Callable[[Path], list[float]]
Experiment = Callable[[TrainSpec], Path]


def torchrun(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(file),
    ]
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=150,
    )


def test_two_ranks_give_the_losses_of_one_process_and_it_continues_their_run(
    small: TrainSpec, options: RunOptions, losses_of: Losses, experiment: Experiment
) -> None:
    spec = replace(small, "checkpoint.every_steps", 10)
    alone = losses_of(mm_train.train(spec, options).run_dir)

    two = torchrun(experiment(spec), "--runs-dir", str(options.runs_dir))
    assert two.returncode == 0, two.stderr
    result_path = Path(two.stdout.splitlines()[-1])
    assert losses_of(result_path.parent) == pytest.approx(alone, rel=1e-5)
    assert two.stdout.count("step 20/20") == 1
    assert checkpoint.read_state(result_path.parent / "checkpoints/step-00000010")["world_size"] == 2

    shutil.rmtree(result_path.parent / "checkpoints/step-00000020")
    continued = mm_train.train(spec, attrs.evolve(options, resume=str(result_path.parent)))
    assert losses_of(continued.run_dir) == pytest.approx(alone, rel=1e-5)
    assert losses_of(continued.run_dir)[10:] != alone[:10]


def test_two_ranks_with_micro_batches_units_and_clips_that_are_encoded_as_they_come(
    small: TrainSpec, options: RunOptions, losses_of: Losses, experiment: Experiment
) -> None:
    alone = losses_of(mm_train.train(small, options).run_dir)
    changes = {
        "runtime.micro_batch_size": 2,
        "fsdp.wrap": ("blocks.*", "blocks.*.ffn", "condition_embedder"),
        "fsdp.reshard_after_forward": False,
        "data.cache": Cache.NONE,
    }
    two = torchrun(experiment(replace(small, changes)), "--runs-dir", str(options.runs_dir))
    assert two.returncode == 0, two.stderr
    assert losses_of(Path(two.stdout.splitlines()[-1]).parent) == pytest.approx(alone, rel=1e-5)


def test_an_error_on_one_rank_ends_all_with_lines_said_once(
    small: TrainSpec, options: RunOptions, tmp_path: Path, experiment: Experiment
) -> None:
    dataset = (
        mm_train.train(replace(small, "schedule.steps", 5), options).run_dir.parents[1] / ".cache/datasets"
    )
    clips = tmp_path / "clips"
    shutil.copytree(next(path for path in dataset.iterdir() if path.is_dir()), clips)
    for clip in clips.rglob("*.mp4"):
        clip.write_bytes(b"no video")
    changes = {"data.dataset": ManifestSpec(name="clips", path=str(clips)), "data.cache": Cache.NONE}
    spec = replace(small, {**changes, "name": "unreadable"})
    two = torchrun(experiment(spec), "--runs-dir", str(options.runs_dir))
    assert two.returncode != 0
    lines = [line for line in two.stderr.splitlines() if line.startswith("spec.data.max_bad_share")]
    assert 1 <= len(lines) <= 2
    assert len(set(lines)) == len(lines)
    folder = max((options.runs_dir / "unreadable").iterdir())
    assert attach(folder).record.status is RunStatus.FAILED


RANKS_THAT_DIFFER = '''"""Each rank trains the spec of its own file."""

import os
from pathlib import Path

from mm_config import load, main

if __name__ == "__main__":
    main(load(Path(__file__).with_name(f"rank{os.environ['RANK']}.json")))
'''


def test_ranks_with_different_specs_stop_and_name_the_field(
    small: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    file = tmp_path / "differing.py"
    file.write_text(RANKS_THAT_DIFFER)
    dump(small, tmp_path / "rank0.json")
    dump(replace(small, "fsdp.reshard_after_forward", False), tmp_path / "rank1.json")
    two = torchrun(file, "--runs-dir", str(options.runs_dir))
    assert two.returncode != 0
    expected = "spec.fsdp.reshard_after_forward: differs between ranks: True on rank 0, False on rank 1"
    assert two.stderr.count(expected) == 1
    assert 'differing.py", line' not in two.stderr
    assert not (options.runs_dir / "differing").exists()
