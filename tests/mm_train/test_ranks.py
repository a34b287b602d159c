"""Trainings on two gloo ranks, each a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

import mm_data
import mm_train
from experiments import tiny_high
from mm_config import dump, replace
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import attach
from mm_config.runs.record import RunStatus
from mm_config.schema.errors import Problem
from mm_config.specs.data import Cache, ManifestSpec
from mm_config.specs.train import TrainSpec
from mm_data import batch_indices
from mm_models import checkpoint
from mm_train.ranks import merged

Losses = Callable[[Path], list[float]]
Experiment = Callable[[TrainSpec], Path]


def torchrun(file: Path, runs_dir: Path) -> tuple[int, str, str]:
    """Starts two ranks as a user does; returns the status, stdout and stderr of both together."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(file), "--runs-dir", str(runs_dir)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    return done.returncode, done.stdout, done.stderr


def two_ranks(file: Path, runs_dir: Path) -> list[tuple[int, str, str]]:
    """Starts two ranks without the launcher, which ends all of them with the first that fails.

    Like the launcher's, the store is this process's: it takes a free port and keeps it.

    Returns:
        Status, stdout and stderr of each.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(file), "--runs-dir", str(runs_dir)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=200) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


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

    for file in options.cache_dir.glob("features/*/latents-0000001.safetensors"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    status, stdout, stderr = torchrun(experiment(spec), options.runs_dir)
    assert status == 0, stderr
    assert "latents-0000001.safetensors is damaged and made again" in stderr
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


def test_a_problem_that_ranks_word_differently_is_said_once() -> None:
    first = [("spec.data.max_bad_share", "9 of 32"), ("spec.fsdp.wrap", "'a'"), ("spec.fsdp.wrap", "'b'")]
    second = [("spec.data.max_bad_share", "16 of 32"), ("", "rank 1 stopped"), ("spec.seed", "other")]
    problems = [*first, *second[1:]]
    assert merged([first, [], second, second]) == [Problem(path, message) for path, message in problems]


NAMES_OF_THREADS = '''"""Trains the spec beside this file and says which of gloo's threads are left."""

import json
import os
from pathlib import Path

from mm_config import load, main

if __name__ == "__main__":
    main(load(Path(__file__).with_suffix(".json")))
    threads = Path("/proc/self/task").iterdir()
    print([name for thread in threads if "gloo" in (name := (thread / "comm").read_text())])
'''


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the names of threads from /proc")
def test_no_thread_outlives_the_process_group(
    small: TrainSpec, options: RunOptions, experiment: Experiment
) -> None:
    """Such a thread can abort the process while the interpreter shuts down."""
    file = experiment(replace(small, "schedule.steps", 2))
    file.write_text(NAMES_OF_THREADS)
    for status, stdout, stderr in two_ranks(file, options.runs_dir):
        assert (status, stdout.splitlines()[-1]) == (0, "[]"), stderr


RANKS_THAT_DIFFER = '''"""Each rank trains the spec of its own file."""

import json
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
    first, second = two_ranks(file, options.runs_dir)
    assert (first[0], second[0]) == (2, 2)
    line = "spec.fsdp.reshard_after_forward: differs between ranks: True on rank 0, False on rank 1"
    assert first[2].count(line) == 1
    assert "Traceback" not in first[2]
    assert line not in second[2]
    assert not (options.runs_dir / small.name).exists()


WHAT_RANKS_DO_TOGETHER = '''"""Prints what each rank gets of work that only one of them could do."""

import json

import torch

from mm_config.schema.errors import UserError
from mm_config.specs.train import PrecisionSpec
from mm_train.ranks import joined


def failing(on: int) -> str:
    if ranks.rank == on:
        raise UserError(f"failed on {on}")
    return f"done on {ranks.rank}"


def caught(call) -> str:
    try:
        return call()
    except UserError as error:
        return f"all: {error}"


with joined(PrecisionSpec(), torch.device("cpu")) as ranks:
    got = {
        "gather": ranks.gather(ranks.rank),
        "share": ranks.share(["of", ranks.rank]),
        "any": [ranks.any(ranks.rank == 1), ranks.any(False)],
        "together": [caught(lambda: ranks.together(lambda: failing(on))) for on in (0, 1, 2)],
        "on_first": [caught(lambda: ranks.on_first(lambda: failing(on))) for on in (0, 1)],
    }
print(json.dumps(got))
'''


def test_what_one_rank_knows_or_fails_at_all_ranks_know(tmp_path: Path) -> None:
    file = tmp_path / "ranks.py"
    file.write_text(WHAT_RANKS_DO_TOGETHER)
    for rank, (status, stdout, stderr) in enumerate(two_ranks(file, tmp_path)):
        assert status == 0, stderr
        assert json.loads(stdout) == {
            "gather": [0, 1],
            "share": ["of", 0],
            "any": [True, False],
            "together": ["all: failed on 0", "all: failed on 1", f"done on {rank}"],
            "on_first": ["all: failed on 0", "done on 0"],
        }


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
