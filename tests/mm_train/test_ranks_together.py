"""What two gloo ranks tell each other, agree on and leave behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mm_config import dump, replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import Problem
from mm_config.specs.datasets import FolderSpec
from mm_config.specs.train import TrainSpec
from mm_models.ranks import Ranks, merged
from mm_train.preparing import prepared
from tests.mm_train.launching import two_ranks

Losses = Callable[[Path], list[float]]
Experiment = Callable[[TrainSpec], Path]


def test_a_problem_that_ranks_word_differently_is_said_once() -> None:
    first = [("spec.data.max_bad_share", "9 of 32"), ("spec.fsdp.wrap", "'a'"), ("spec.fsdp.wrap", "'b'")]
    second = [("spec.data.max_bad_share", "16 of 32"), ("", "rank 1 stopped"), ("spec.seed", "other")]
    problems = [*first, *second[1:]]
    assert merged([first, [], second, second]) == [Problem(path, message) for path, message in problems]


def test_clips_are_indexed_and_told_once_by_the_first_of_two_ranks(
    small: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips := tmp_path / "clips").mkdir()
    Image.new("RGB", (64, 64)).save(clips / "a.png")
    (clips / "a.txt").write_text("a picture")
    (clips / "b.txt").write_text("a caption alone")
    monkeypatch.setattr(Ranks, "together", lambda ranks, work: work())
    monkeypatch.setattr(Ranks, "share", lambda ranks, value: value)
    spec = replace(small, "data.dataset", FolderSpec(name="x", path=str(clips)))
    dataset, _ = prepared(spec, RunOptions(runs_dir=tmp_path / "runs"), Ranks(0, 2, grouped=False))
    told = capsys.readouterr().err
    assert len(dataset.records) == 1 and told.count("1 left out: a caption without a clip beside it") == 1


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
from mm_models.ranks import joined


def failing(on: int) -> str:
    if ranks.rank == on:
        raise UserError(f"failed on {on}")
    return f"done on {ranks.rank}"


def caught(call) -> str:
    try:
        return call()
    except UserError as error:
        return f"all: {error}"


with joined(torch.device("cpu")) as ranks:
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
