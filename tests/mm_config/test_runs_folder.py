"""Run folders: what they hold, how they end, how they are resumed, and what can't be written."""

import errno
import json
import os
import shutil
from pathlib import Path

import attrs
import pytest

from experiments.tiny_high import SPEC
from mm_config import exact_hash, load, replace, spec_hash
from mm_config.options.run_options import RunOptions
from mm_config.runs import folder, lock
from mm_config.runs.folder import attach, check_opens, open_run, recorded
from mm_config.runs.index import open_index
from mm_config.runs.record import RunStatus
from mm_config.schema.errors import SpecError, UserError

NAMED = replace(SPEC, "name", "tiny_high")


def statuses(runs_dir: Path) -> list[RunStatus]:
    return [record.status for record in open_index(runs_dir).list()]


def test_a_run_leaves_its_spec_provenance_metrics_and_result(tmp_path: Path) -> None:
    options = RunOptions(tmp_path / "runs", argv=("experiments/tiny_high.py", "--spec.seed", "0"))
    run = open_run(NAMED, options, devices=["one accelerator"])

    assert run.path.parent == tmp_path / "runs" / "tiny_high"
    date, digits, number = run.path.name.split("-")
    assert (len(date), digits, number) == (8, spec_hash(NAMED)[:12], "1")
    assert load(run.path / "spec.json") == NAMED
    provenance = json.loads((run.path / "provenance.json").read_text())
    assert provenance["argv"] == list(options.argv)
    assert provenance["devices"] == ["one accelerator"]
    assert statuses(options.runs_dir) == [RunStatus.RUNNING]

    run.log({"step": 1, "loss": 0.5})
    run.log({"step": 2, "loss": 0.25})
    result = run.finish({"checkpoint": "checkpoints/step-00000002"})

    assert result == run.path / "result.json"
    assert json.loads(result.read_text()) == {"checkpoint": "checkpoints/step-00000002"}
    lines = run.metrics_path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    assert statuses(options.runs_dir) == [RunStatus.FINISHED]
    assert sorted(path.name for path in run.path.iterdir() if "patch" not in path.name) == [
        "lock-1",
        "metrics.jsonl",
        "provenance.json",
        "result.json",
        "spec.json",
        "status.json",
    ]


def test_a_pipe_in_the_place_of_the_metrics_is_not_waited_for(tmp_path: Path) -> None:
    run = open_run(NAMED, RunOptions(tmp_path / "runs"))
    os.mkfifo(run.metrics_path)
    with pytest.raises(UserError, match="it is a pipe, no file"):
        run.log({"step": 1, "loss": 0.5})


def test_equal_specs_get_numbered_folders(tmp_path: Path) -> None:
    names = [open_run(NAMED, RunOptions(tmp_path)).path.name for _ in range(3)]
    assert [name.rpartition("-")[2] for name in names] == ["1", "2", "3"]


def test_a_spec_without_a_label_is_kept_under_its_kind(tmp_path: Path) -> None:
    assert open_run(SPEC, RunOptions(tmp_path)).path.parent == tmp_path / "train"


@pytest.mark.parametrize("name", ["../outside", "a/b", ".cache", "-x", " "])
def test_a_label_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"spec\.name: must be a folder's name"):
        open_run(replace(SPEC, "name", name), RunOptions(tmp_path))


@pytest.mark.parametrize("occupied", ["runs", "runs/tiny_high"])
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, occupied: str) -> None:
    (tmp_path / occupied).parent.mkdir(exist_ok=True)
    (tmp_path / occupied).write_text("a file where a folder should be")
    with pytest.raises(UserError) as caught:
        open_run(NAMED, RunOptions(tmp_path / "runs"))
    (problem,) = caught.value.problems
    assert problem.path.startswith(str(tmp_path / occupied))
    assert problem.message.startswith("the run folder can't be written: ")
    assert "\n" not in str(problem)


def test_the_place_of_a_run_is_checked_before_anything_is_done_for_it(tmp_path: Path) -> None:
    check_opens(NAMED, RunOptions(tmp_path / "new" / "runs"))
    assert [path.name for path in (tmp_path / "new" / "runs").iterdir()] == ["index.sqlite"]
    (tmp_path / "file").write_text("a file where a folder should be")
    for runs_dir in (tmp_path / "file", tmp_path / "file" / "runs", Path("/proc/runs")):
        with pytest.raises(UserError, match="the run folder can't be written: ") as caught:
            check_opens(NAMED, RunOptions(runs_dir))
        assert "\n" not in str(caught.value)
    open_run(NAMED, RunOptions(tmp_path)).fail("stopped")
    check_opens(NAMED, RunOptions(tmp_path, resume="latest"))
    with pytest.raises(SpecError, match=r"spec\.seed: was 0 in that run, is 7 now"):
        check_opens(replace(NAMED, "seed", 7), RunOptions(tmp_path, resume="latest"))
    with pytest.raises(UserError, match="no run 'elsewhere'"):
        check_opens(NAMED, RunOptions(tmp_path, resume="elsewhere"))


def test_metrics_refuse_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    run = open_run(NAMED, RunOptions(tmp_path))
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.log({"step": 1, "loss": float("nan")})
    assert not run.metrics_path.exists()


def test_rewinding_drops_later_steps_and_a_torn_line(tmp_path: Path) -> None:
    run = open_run(NAMED, RunOptions(tmp_path))
    run.rewind_metrics(0)
    for step in (1, 2, 3):
        run.log({"step": step})
    with run.metrics_path.open("a") as file:
        file.write('{"step": 2, "lo')
    run.rewind_metrics(2)
    assert run.metrics_path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_an_exception_marks_the_run_failed_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), recorded(open_run(NAMED, RunOptions(tmp_path))):
        raise RuntimeError("the loss is not finite")
    (record,) = open_index(tmp_path).list()
    assert record.status is RunStatus.FAILED
    assert record.reason == "RuntimeError: the loss is not finite"


def test_ctrl_c_marks_the_run_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), recorded(open_run(NAMED, RunOptions(tmp_path))):
        raise KeyboardInterrupt
    assert statuses(tmp_path) == [RunStatus.INTERRUPTED]


def test_what_fails_after_the_end_leaves_the_run_finished(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), recorded(open_run(NAMED, RunOptions(tmp_path))) as run:
        run.finish({})
        raise BrokenPipeError
    assert statuses(tmp_path) == [RunStatus.FINISHED]


def test_a_run_whose_result_is_written_has_finished_whatever_could_not_be_written_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = open_run(NAMED, RunOptions(tmp_path))
    with pytest.raises(UserError, match="No space left"), recorded(run), monkeypatch.context() as patch:
        patch.setattr(folder, "write_record", full)
        run.finish({})
    assert statuses(tmp_path) == [RunStatus.FINISHED]

    killed = open_run(NAMED, RunOptions(tmp_path))
    killed.result_path.write_text("{}")
    lock.release(killed.path)
    assert statuses(tmp_path) == [RunStatus.FINISHED] * 2
    assert all(record.finished_at for record in open_index(tmp_path).list())


def test_other_ranks_attach_without_taking_the_lock(tmp_path: Path) -> None:
    run = open_run(NAMED, RunOptions(tmp_path))
    assert attrs.evolve(attach(run.path), path=run.path) == run
    run.finish({})


def test_attaching_to_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run folder"):
        attach(tmp_path)


@pytest.mark.parametrize("how", ["path", "run id", "folder name", "hash prefix", "latest"])
def test_a_run_is_resumed_in_its_folder(tmp_path: Path, how: str) -> None:
    options = RunOptions(tmp_path)
    first = open_run(NAMED, options)
    first.log({"step": 1})
    first.fail("power cut", RunStatus.INTERRUPTED)
    target = {
        "path": str(first.path),
        "run id": first.record.path,
        "folder name": first.path.name,
        "hash prefix": spec_hash(NAMED)[:8],
        "latest": "latest",
    }[how]

    again = open_run(NAMED, attrs.evolve(options, resume=target))

    assert again.path == first.path
    assert again.metrics_path.read_text() == '{"step": 1}\n'
    assert (first.path / "provenance-2.json").is_file()
    again.finish({})
    (record,) = open_index(tmp_path).list()
    assert record.status is RunStatus.FINISHED
    assert record.reason is None
    assert record.uid == first.record.uid


def test_execution_settings_may_change_on_resume_and_are_kept(tmp_path: Path) -> None:
    first = open_run(NAMED, RunOptions(tmp_path))
    first.fail("stopped")
    changed = replace(NAMED, "runtime.micro_batch_size", 4)
    again = open_run(changed, RunOptions(tmp_path, resume="latest"))
    assert load(again.path / "spec.json") == NAMED
    assert load(again.path / "spec-2.json") == changed
    assert exact_hash(changed) != exact_hash(NAMED)


def test_resuming_with_another_spec_prints_the_difference(tmp_path: Path) -> None:
    open_run(NAMED, RunOptions(tmp_path)).fail("stopped")
    changed = replace(NAMED, {"optim.lr": 1e-3, "seed": 7, "runtime.log_every": 1})
    with pytest.raises(SpecError) as caught:
        open_run(changed, RunOptions(tmp_path, resume="latest"))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("options.resume: tiny_high/")
    assert lines[1:] == [
        f"spec.optim.lr: was {NAMED.optim.lr} in that run, is 0.001 now",
        "spec.seed: was 0 in that run, is 7 now",
    ]


def test_resuming_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run 'latest'"):
        open_run(NAMED, RunOptions(tmp_path, resume="latest"))
    assert list(tmp_path.glob("tiny_high/*")) == []


def test_resuming_a_prefix_of_two_specs_is_ambiguous(tmp_path: Path) -> None:
    for seed in (1, 2):
        open_run(replace(NAMED, "seed", seed), RunOptions(tmp_path)).fail("stopped")
    with pytest.raises(UserError, match="'tiny_high' is ambiguous"):
        open_run(replace(NAMED, "seed", 1), RunOptions(tmp_path, resume="tiny_high"))


def test_a_run_in_use_is_not_resumed(tmp_path: Path) -> None:
    run = open_run(NAMED, RunOptions(tmp_path))
    with pytest.raises(UserError, match="the run is in use by process"):
        open_run(NAMED, RunOptions(tmp_path, resume="latest"))
    run.finish({})
    open_run(NAMED, RunOptions(tmp_path, resume="latest")).finish({})


def test_the_latest_run_is_one_whose_folder_is_here(tmp_path: Path) -> None:
    first, second = (open_run(NAMED, RunOptions(tmp_path)) for _ in range(2))
    for run in (first, second):
        run.fail("stopped", RunStatus.INTERRUPTED)
    shutil.rmtree(second.path)
    assert open_run(NAMED, RunOptions(tmp_path, resume="latest")).path == first.path
