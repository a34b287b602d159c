"""Recorded windows of steps, opened and read back."""

import gzip
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import SpecError, UserError
from mm_config.specs.monitoring import MemorySnapshotSpec, ProfilerSpec, Stacks
from mm_config.specs.train import TrainSpec
from mm_train.profiling import recording, require_recordable

CUDA = torch.device("cuda")


def events_of(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.iterdir()
    with gzip.open(file, "rt") as stream:
        return json.load(stream)["traceEvents"]


def test_a_trace_holds_the_steps_of_its_window_and_what_was_asked_for(
    small: TrainSpec, options: RunOptions
) -> None:
    profiler = ProfilerSpec(start_step=1, end_step=3, record_shapes=True, with_memory=True)
    spec = replace(small, {"schedule.steps": 4, "profiler": profiler})
    result = mm_train.train(spec, options)
    assert [file.name for file in (result.run_dir / "profile").iterdir()] == [
        "rank-0.steps-1-3.pt.trace.json.gz"
    ]
    events = events_of(result.run_dir / "profile")
    # One fused update for each recorded step, of all parameters.
    assert sum(event["name"] == "aten::_fused_adamw_" for event in events) == 2
    products = [event for event in events if event["name"] == "aten::addmm"]
    assert [32, 32] in [shape for event in products for shape in event["args"]["Input Dims"]]
    assert any(event["name"] == "[memory]" and event["args"]["Bytes"] > 0 for event in events)
    assert not any("loop.py" in event["name"] for event in events)


def test_what_was_not_asked_for_is_not_recorded(small: TrainSpec, options: RunOptions) -> None:
    spec = replace(small, {"schedule.steps": 4, "profiler": ProfilerSpec(start_step=2, end_step=4)})
    running = mm_train.steps(replace(spec, "profiler.folder", "a/b"), options)
    for step in running:
        if step.step == 3:
            break
    running.close()
    (folder,) = (options.runs_dir / spec.name).iterdir()
    # The run was left in the window, and is resumed in it.
    events = events_of(folder / "a/b")
    assert sum(event["name"] == "aten::_fused_adamw_" for event in events) == 1
    assert not any(event["name"] == "[memory]" or "Input Dims" in event.get("args", {}) for event in events)
    assert not any("loop.py" in event["name"] for event in events)
    mm_train.train(spec, attrs.evolve(options, resume=str(folder)))
    assert sum(event["name"] == "aten::_fused_adamw_" for event in events_of(folder / "profile")) == 1


def test_stacks_are_recorded_where_they_are_asked_for(small: TrainSpec, tmp_path: Path) -> None:
    for with_stack in (False, True):
        window = ProfilerSpec(start_step=0, end_step=1, with_stack=with_stack)
        path = tmp_path / str(with_stack)
        training: Any = SimpleNamespace(
            spec=replace(small, "profiler", window),
            device=torch.device("cpu"),
            ranks=SimpleNamespace(rank=0),
            run=SimpleNamespace(path=path),
        )
        with recording(training) as reached:
            reached(0)
            json.dumps(torch.ones(2).tolist())
        events = events_of(path / "profile")
        assert any(event["name"] == "aten::ones" for event in events)
        assert any("json/__init__.py" in event["name"] for event in events) is with_stack


def test_a_window_that_can_record_nothing_is_refused_before_anything_is_made(
    small: TrainSpec, options: RunOptions
) -> None:
    with pytest.raises(SpecError, match=r"spec\.profiler\.end_step: is 99, above spec\.schedule\.steps 20"):
        mm_train.train(replace(small, "profiler", ProfilerSpec(end_step=99)), options)
    changes = {
        "profiler": ProfilerSpec(with_cpu=False),
        "memory_snapshot": MemorySnapshotSpec(),
    }
    with pytest.raises(UserError) as refused:
        mm_train.train(replace(small, changes), options)
    assert [str(problem) for problem in refused.value.problems] == [
        "spec.profiler.with_cpu: is False, and on a CPU there is nothing else to record",
        "spec.memory_snapshot: records cuda and npu; the allocator of a CPU has no history",
    ]
    assert not (options.runs_dir / small.name).exists()
    require_recordable(replace(small, changes), CUDA)


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """In place of a device's allocator: what it is told, and a file as it would write one."""
    told: list[Any] = []

    def dump(file: str) -> None:
        Path(file).write_bytes(pickle.dumps({"told": len(told)}))

    memory = SimpleNamespace(_record_memory_history=lambda **words: told.append(words), _dump_snapshot=dump)
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(memory=memory))
    yield told


@pytest.mark.parametrize("rank", [0, 1])
def test_the_allocators_history_is_kept_for_a_window_on_the_named_ranks(
    small: TrainSpec, tmp_path: Path, allocator: list[Any], rank: int
) -> None:
    snapshot = MemorySnapshotSpec(start_step=1, end_step=3, stacks=Stacks.PYTHON, max_entries=7)
    training: Any = SimpleNamespace(
        spec=replace(small, "memory_snapshot", snapshot),
        device=CUDA,
        ranks=SimpleNamespace(rank=rank),
        run=SimpleNamespace(path=tmp_path),
    )
    counted = list[int]()
    with recording(training) as reached:
        for step in range(4):
            reached(step)
            counted.append(len(allocator))
    if rank:
        assert allocator == []
        return
    assert counted == [0, 1, 1, 2]
    assert allocator == [{"enabled": "all", "stacks": "python", "max_entries": 7}, {"enabled": None}]
    (file,) = (tmp_path / "memory").iterdir()
    assert file.name == "rank-0.steps-1-3.pickle"
    assert pickle.loads(file.read_bytes()) == {"told": 1}
    allocator.clear()
    training.spec = replace(training.spec, "memory_snapshot.max_entries", None)
    with recording(training) as reached:
        reached(2)
    assert allocator == [
        {"enabled": "all", "stacks": "python", "max_entries": sys.maxsize},
        {"enabled": None},
    ]


def test_every_setting_reaches_the_profiler_of_an_npu(
    small: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(**words: Any) -> Any:
        return SimpleNamespace(**words)

    class Recorder:
        def __init__(self, **words: Any) -> None:
            told.append(words)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            told.append("stopped")

        def step(self) -> None:
            told.append("step")

    told: list[Any] = []
    profiler = of(
        ProfilerActivity=of(CPU="host", NPU="npu"),
        ProfilerLevel=of(Level2="second"),
        AiCMetrics=of(ArithmeticUtilization="arithmetic"),
        _ExperimentalConfig=dict,
        tensorboard_trace_handler=lambda folder, **words: (folder, words),
        profile=Recorder,
    )
    monkeypatch.setitem(sys.modules, "torch_npu", of(profiler=profiler))
    window = ProfilerSpec(
        start_step=0,
        end_step=2,
        ranks=(),
        with_cpu=False,
        npu_level=2,
        npu_aic_metrics="ArithmeticUtilization",
        npu_simplify=True,
        npu_analyse=False,
    )
    spec = replace(small, "profiler", window)
    training: Any = of(spec=spec, device=of(type="npu"), ranks=of(rank=3), run=of(path=tmp_path))
    with recording(training) as reached:
        reached(0)
        reached(1)
    config = {"profiler_level": "second", "aic_metrics": "arithmetic", "data_simplification": True}
    handler = (str(tmp_path / "profile"), {"worker_name": "rank-3.steps-0-2", "analyse_flag": False})
    asked = dict.fromkeys(("record_shapes", "with_stack", "profile_memory"), False)
    first = {"activities": ["npu"], **asked, "experimental_config": config, "on_trace_ready": handler}
    assert told == [first, "step", "stopped"]
