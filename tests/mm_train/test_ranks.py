"""Trainings on two gloo ranks, each a process of its own."""

import shutil
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

import mm_data
import mm_train
from experiments import tiny_high
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import attach
from mm_config.runs.record import RunStatus
from mm_config.specs.data import Cache
from mm_config.specs.datasets import ManifestSpec
from mm_config.specs.train import TrainSpec
from mm_data import batch_indices
from mm_models import checkpoint
from tests.mm_train.launching import torchrun, two_ranks

Losses = Callable[[Path], list[float]]
Experiment = Callable[[TrainSpec], Path]


def test_two_ranks_give_the_losses_of_one_process_and_it_continues_their_run(
    small: TrainSpec, options: RunOptions, losses_of: Losses, experiment: Experiment
) -> None:
    changes = {
        "data.dataset.clips_per_caption": 1,
        "schedule.steps": 20,
        "schedule.warmup_steps": 5,
        "checkpoint.every_steps": 10,
        "runtime.device": "cpu",
        "name": small.name,
    }
    spec = replace(tiny_high.SPEC, changes)
    alone = losses_of(mm_train.train(spec, options).run_dir)
    # Losses of a network that stands still agree too, and show nothing.
    assert sum(alone[-5:]) < 0.8 * sum(alone[:5])

    damaged = sorted(options.cache_dir.glob("features/latents-*/*.safetensors"))
    assert damaged
    for file in damaged:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    status, stdout, stderr = torchrun(experiment(spec), options.runs_dir)
    assert status == 0, stderr
    assert any(f"{file} is damaged and made again" in stderr for file in damaged)
    result_path = Path(stdout.splitlines()[-1])
    assert losses_of(result_path.parent) == pytest.approx(alone, rel=1e-5)
    assert stdout.count("step 20/20") == 1
    assert checkpoint.read_state(result_path.parent / "checkpoints/step-00000010")["world_size"] == 2

    shutil.rmtree(result_path.parent / "checkpoints/step-00000020")
    continued = mm_train.train(spec, attrs.evolve(options, resume=str(result_path.parent)))
    assert losses_of(continued.run_dir) == pytest.approx(alone, rel=1e-5)


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
    first, second = two_ranks(experiment(replace(small, changes)), options.runs_dir)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert losses_of(Path(first[1].splitlines()[-1]).parent) == pytest.approx(alone, rel=1e-5)
    assert second[1] == ""


def test_an_error_on_one_rank_ends_all_with_a_line_said_once(
    small: TrainSpec,
    options: RunOptions,
    losses_of: Losses,
    tmp_path: Path,
    experiment: Experiment,
    count_hashes: Callable[[Path], Path],
) -> None:
    dataset = mm_data.prepare(small.data.dataset, cache_dir=options.cache_dir)
    clips = tmp_path / "clips"
    shutil.copytree(dataset.root, clips)
    of_second_rank = batch_indices(dataset.order_key, small.seed, 1, 8, len(dataset.records))[-1]
    (clips / dataset.records[of_second_rank].path.relative_to(dataset.root)).write_bytes(b"no video")
    changes = {
        "data.dataset": ManifestSpec(name=str(clips), path=str(clips)),
        "data.cache": Cache.NONE,
        "data.max_bad_share": 0.0,
    }
    spec = replace(small, {**changes, "name": "unreadable"})
    hashed_by = count_hashes(file := experiment(spec))
    first, second = two_ranks(file, options.runs_dir)
    assert (first[0], second[0]) == (2, 2)
    assert hashed_by.read_text() == "0" * len(dataset.records)
    assert first[2].count("spec.data.max_bad_share: 1 of 32 clips can't be read, 0 are allowed") == 1
    assert "Traceback" not in first[2] + second[2]
    assert "spec.data.max_bad_share" not in second[2]
    folder = max((options.runs_dir / "unreadable").iterdir())
    assert attach(folder).record.status is RunStatus.FAILED
    assert len(losses_of(folder)) == 1


LEFT_BY_THE_SECOND_RANK = '''"""Trains the spec beside this file; the second rank leaves after two steps."""

import os
import sys
from pathlib import Path

import mm_train
from mm_config import RunOptions, load

if __name__ == "__main__":
    spec = load(Path(__file__).with_suffix(".json"))
    try:
        for step in mm_train.steps(spec, RunOptions(runs_dir=Path(sys.argv[2]))):
            if step.step == 2 and os.environ["RANK"] == "1":
                break
    except KeyboardInterrupt:
        print("asked to stop")
    print(step.step)
'''


def test_where_one_rank_leaves_its_iterator_all_stop_after_the_same_step(
    small: TrainSpec, options: RunOptions, experiment: Experiment
) -> None:
    file = experiment(small)
    file.write_text(LEFT_BY_THE_SECOND_RANK)
    first, second = two_ranks(file, options.runs_dir)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert first[1].splitlines()[-2:] == ["asked to stop", "2"]
    assert second[1].splitlines() == ["2"]
    folder = max((options.runs_dir / small.name).iterdir())
    assert attach(folder).record.status is RunStatus.INTERRUPTED
    assert checkpoint.latest(folder / "checkpoints") == folder / "checkpoints" / "step-00000002"
