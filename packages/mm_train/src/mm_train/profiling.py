"""Windows of steps that a profiler records, or the allocator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch

from mm_config.console import say
from mm_config.schema import Problem, UserError
from mm_config.specs import MemorySnapshotSpec, ProfilerSpec, TrainSpec
from mm_models import profiled
from mm_train.work import Training


def require_recordable(spec: TrainSpec, device: torch.device) -> None:
    """Refuses recordings that would be empty on this device.

    Raises:
        UserError: All of them.
    """
    if found := list(_problems(spec, device)):
        raise UserError(found)


def _problems(spec: TrainSpec, device: torch.device) -> Iterator[Problem]:
    if device.type == "cpu":
        if spec.profiler is not None and not spec.profiler.with_cpu:
            yield Problem("spec.profiler.with_cpu", "is False, and on a CPU there is nothing else to record")
        if spec.memory_snapshot is not None:
            yield Problem(
                "spec.memory_snapshot", "records cuda and npu; the allocator of a CPU has no history"
            )


@attrs.define
class _Window:
    """A recording that is to be made between two steps."""

    spec: ProfilerSpec | MemorySnapshotSpec
    """Which steps, and what of them."""
    record: Callable[[Path, str], Any]
    """Makes a context that records and writes into a folder, under a name."""
    running: ExitStack | None = None
    """Open while it records."""
    recorder: Any = None
    """What records."""


@contextmanager
def recording(training: Training) -> Generator[Callable[[int], None]]:
    """Gives a function that is told of each step, counted from 0, before it begins.

    A window that the run ends in, or that a resumed run begins in, is recorded as far as it goes.
    """
    windows = list(_windows(training))

    def reached(step: int) -> None:
        for window in windows:
            inside = window.spec.start_step <= step < window.spec.end_step
            if inside and window.running is None:
                name = f"rank-{training.ranks.rank}.steps-{step}-{window.spec.end_step}"
                window.running = ExitStack()
                folder = training.run.path / window.spec.folder
                folder.mkdir(parents=True, exist_ok=True)
                window.recorder = window.running.enter_context(window.record(folder, name))
            elif window.running is not None and inside:
                _next_step(window.recorder)
            elif window.running is not None:
                window.running.close()
                window.running = None

    with ExitStack() as closing:
        for window in windows:
            closing.callback(lambda window=window: window.running and window.running.close())
        yield reached


def _next_step(recorder: Any) -> None:
    if recorder is not None:
        recorder.step()


def _windows(training: Training) -> Iterator[_Window]:
    spec, rank, device = training.spec, training.ranks.rank, training.device
    if (profiler := spec.profiler) is not None and rank in (profiler.ranks or (rank,)):
        yield _Window(profiler, lambda folder, name: profiled(profiler, device, folder, name))
    if (snapshot := spec.memory_snapshot) is not None and rank in (snapshot.ranks or (rank,)):
        yield _Window(snapshot, lambda folder, name: _snapshot(snapshot, device, folder, name))


@contextmanager
def _snapshot(spec: MemorySnapshotSpec, device: torch.device, folder: Path, name: str) -> Generator[None]:
    """The allocator's history, which pytorch.org/memory_viz opens."""
    memory = torch.get_device_module(device).memory
    most = sys.maxsize if spec.max_entries is None else spec.max_entries
    memory._record_memory_history(enabled="all", stacks=spec.stacks.value, max_entries=most)
    try:
        yield
        file = folder / f"{name}.pickle"
        memory._dump_snapshot(str(file))
        say(f"memory snapshot in {file}")
    finally:
        memory._record_memory_history(enabled=None)
