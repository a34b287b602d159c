"""Variables that a run exports, before the code that reads them is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from experiments import tiny, tiny_high
from mm_config import replace
from mm_config.cli.main import main
from mm_config.npu.exporting import exported, variables_of
from mm_config.npu.variables import RECORDED
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
from mm_config.runs.provenance_diff import changes, origin_here, stored_origins
from mm_config.schema.errors import UserError
from mm_config.specs.npu import NpuAllocatorSpec, NpuSpec

KIND = '''
from mm_config.schema.decorator import spec
from mm_config.specs.train import TrainSpec

@spec("walk")
class Walk(TrainSpec):
    """A training of another kind."""
'''
RUNNER = '''
"""Runs it; what stands here happens when it is imported."""
import os, subprocess, sys
from mm_config.options.run_options import RunOutcome
from mm_config.runs.folder import open_run

AT_IMPORT = {"queue": os.environ.get("TASK_QUEUE_ENABLE"), "torch": "torch" in sys.modules}

def run(spec, options):
    script = "import os; print(os.environ['PYTORCH_NPU_ALLOC_CONF'])"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    run = open_run(spec, options)
    return RunOutcome(run.path, run.finish({**AT_IMPORT, "child": child.stdout.strip()}))
'''
EXPERIMENT = """
import attrs
from experiments.tiny_high import SPEC as TINY
from mm_config import main, replace
from mm_config.specs.npu import NpuAllocatorSpec, NpuSpec
from walking import Walk

fields = {field.name: getattr(TINY, field.name) for field in attrs.fields(type(TINY))}
NPU = NpuSpec(allocator=NpuAllocatorSpec(expandable_segments=True), task_queue=2)
SPEC = replace(Walk(**fields), "runtime.npu", NPU)

if __name__ == "__main__":
    main(SPEC)
"""
NPU = NpuSpec(allocator=NpuAllocatorSpec(expandable_segments=True), task_queue=2)
SPEC = replace(tiny_high.SPEC, "runtime.npu", NPU)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RECORDED:
        monkeypatch.delenv(name, raising=False)


def launched(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python experiment.py` with a runner that an installed package registers."""
    metadata = folder / "walking-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: walking\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mm.runners]\nwalk = walking_runner:run\n")
    (folder / "walking.py").write_text(KIND)
    (folder / "walking_runner.py").write_text(RUNNER)
    (folder / "experiment.py").write_text(EXPERIMENT)
    return subprocess.run(
        [sys.executable, "experiment.py"],
        cwd=folder,
        env={**os.environ, **variables, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_variables_are_set_before_the_runner_is_imported_and_children_have_them(tmp_path: Path) -> None:
    # The shell already says the first, and the same.
    done = launched(tmp_path, PYTORCH_NPU_ALLOC_CONF="expandable_segments:True", HCCL_BUFFSIZE="200")
    assert done.returncode == 0, done.stderr
    result = Path(done.stdout.splitlines()[-1])
    assert json.loads(result.read_text()) == {
        "queue": "2",
        "torch": False,
        "child": "expandable_segments:True",
    }
    assert json.loads((result.parent / "provenance.json").read_text())["environment"] == {
        "exported": {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True", "TASK_QUEUE_ENABLE": "2"},
        "found": {"HCCL_BUFFSIZE": "200"},
    }


def test_a_shell_that_says_something_else_stops_the_run_with_both_values(tmp_path: Path) -> None:
    done = launched(tmp_path, TASK_QUEUE_ENABLE="1", PYTORCH_ALLOC_CONF="expandable_segments:True")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "spec.runtime.npu.allocator: sets PYTORCH_NPU_ALLOC_CONF, but the shell has PYTORCH_ALLOC_CONF, and "
        "torch_npu refuses both; unset it",
        "spec.runtime.npu.task_queue: asks for TASK_QUEUE_ENABLE=2, but the shell has TASK_QUEUE_ENABLE=1; "
        "unset it there, or change the spec",
    ]
    assert not (tmp_path / "runs").exists()


def test_the_environment_is_afterwards_as_it_was() -> None:
    os.environ["TASK_QUEUE_ENABLE"] = "2"
    try:
        with exported(SPEC) as added:
            assert dict(added) == {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True"}
            assert os.environ["PYTORCH_NPU_ALLOC_CONF"] == "expandable_segments:True"
        assert os.environ["TASK_QUEUE_ENABLE"] == "2"
        assert "PYTORCH_NPU_ALLOC_CONF" not in os.environ
    finally:
        del os.environ["TASK_QUEUE_ENABLE"]


def test_a_run_that_is_built_first_may_say_other_things_after_one_another() -> None:
    for queue in (1, 2):
        with exported(replace(SPEC, "runtime.npu.task_queue", queue)):
            assert os.environ["TASK_QUEUE_ENABLE"] == str(queue)
            with exported(tiny.SPEC) as added:
                assert not added


def test_a_run_that_is_not_for_an_npu_exports_nothing_and_contradicts_no_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "1")
    for device in ("cpu", "cuda"):
        with exported(replace(SPEC, "runtime.device", device)) as added:
            assert not added
    with pytest.raises(UserError, match="the shell has TASK_QUEUE_ENABLE=1"), exported(SPEC):
        pass


def test_a_shell_s_variable_that_contradicts_a_spec_s_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_LAUNCH_BLOCKING", "1")
    with (
        pytest.raises(UserError, match=r"with the shell's variables, TASK_QUEUE_ENABLE is 2") as caught,
        exported(SPEC),
    ):
        pass
    assert [problem.path for problem in caught.value.problems] == ["spec.runtime.npu"]


def test_what_only_the_shell_says_is_not_for_a_spec_to_answer_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HCCL_EXEC_TIMEOUT", "17340")
    with exported(SPEC):
        pass


def test_variables_that_come_too_late_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_npu", types.ModuleType("torch_npu"))
    with (
        pytest.raises(UserError, match="PYTORCH_NPU_ALLOC_CONF, TASK_QUEUE_ENABLE, and torch_npu"),
        exported(SPEC),
    ):
        pass
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "2")
    monkeypatch.setenv("PYTORCH_NPU_ALLOC_CONF", "expandable_segments:True")
    with exported(SPEC):
        pass


def test_a_run_on_an_npu_refuses_an_environment_that_hides_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INF_NAN_MODE_ENABLE", "0")
    with (
        pytest.raises(UserError, match="INF_NAN_MODE_ENABLE: is 0"),
        exported(replace(tiny_high.SPEC, "runtime.device", "npu")),
    ):
        pass
    with exported(tiny_high.SPEC):
        pass


def test_a_deterministic_run_exports_what_repeatable_sums_need() -> None:
    deterministic = replace(tiny_high.SPEC, "runtime.deterministic", True)
    assert variables_of(deterministic) == {"HCCL_DETERMINISTIC": "true", "CLOSE_MATMUL_K_SHIFT": "1"}
    assert variables_of(replace(deterministic, "runtime.device", "cuda")) == {}
    assert variables_of(replace(tiny.SPEC, "runtime.deterministic", True)) == variables_of(deterministic)
    assert variables_of(tiny.SPEC) == variables_of(tiny_high.SPEC) == {}


def test_reproducing_tells_only_of_variables_that_the_shell_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HCCL_BUFFSIZE", "200")
    with exported(SPEC):
        run = open_run(SPEC, RunOptions(tmp_path))
        run.finish({})
    (then,) = stored_origins(run.path).values()
    monkeypatch.setenv("HCCL_BUFFSIZE", "400")
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "2")
    found = [
        str(change)
        for change in changes(then, origin_here((), variables_of(SPEC)))
        if "variable" in change.name
    ]
    assert found == ["variable HCCL_BUFFSIZE: 200 -> 400"]


def test_a_dry_run_says_what_would_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(
        SPEC, ["tiny_high.py", "--dry-run", "--runs-dir", str(tmp_path), "--spec.runtime.npu.log-level", "3"]
    )
    assert (
        "  exports     PYTORCH_NPU_ALLOC_CONF=expandable_segments:True TASK_QUEUE_ENABLE=2 "
        "ASCEND_GLOBAL_LOG_LEVEL=3\n"
    ) in capsys.readouterr().out


def test_a_dry_run_refuses_the_shell_that_the_run_would_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "1")
    with pytest.raises(SystemExit) as ended:
        main(SPEC, ["tiny_high.py", "--dry-run", "--runs-dir", str(tmp_path)])
    assert ended.value.code == 2
    assert "but the shell has TASK_QUEUE_ENABLE=1" in capsys.readouterr().err
