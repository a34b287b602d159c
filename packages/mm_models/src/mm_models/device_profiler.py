"""Recording what a device does: torch's profiler, or that of torch_npu."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from mm_config.console import say
from mm_config.specs import ProfilerSpec


def profiled(
    spec: ProfilerSpec, device: torch.device, folder: Path, name: str
) -> AbstractContextManager[Any]:
    """Records a block, whose value has a method `step`, and writes what it recorded.

    Args:
        spec: What is recorded.
        device: Of the block.
        folder: Where it is written; it exists.
        name: Of the recording.
    """
    record = _npu_profile if device.type == "npu" else _torch_profile
    return record(spec, device, folder, name)


@contextmanager
def _torch_profile(spec: ProfilerSpec, device: torch.device, folder: Path, name: str) -> Generator[Any]:
    """A trace that Perfetto, chrome://tracing and Holistic Trace Analysis open."""
    activities = [ProfilerActivity.CPU] if spec.with_cpu else []
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(
        activities=activities,
        record_shapes=spec.record_shapes,
        with_stack=spec.with_stack,
        profile_memory=spec.with_memory,
    ) as recorder:
        yield recorder
    file = folder / f"{name}.pt.trace.json.gz"
    recorder.export_chrome_trace(str(file))
    say(f"profile in {file}")


@contextmanager
def _npu_profile(spec: ProfilerSpec, device: torch.device, folder: Path, name: str) -> Generator[Any]:
    """What torch_npu's profiler writes, in a folder that MindStudio Insight opens."""
    from torch_npu import profiler  # type: ignore[import-not-found]

    activities = [profiler.ProfilerActivity.CPU] if spec.with_cpu else []
    config = profiler._ExperimentalConfig(
        profiler_level=getattr(profiler.ProfilerLevel, f"Level{spec.npu_level}"),
        aic_metrics=getattr(profiler.AiCMetrics, spec.npu_aic_metrics),
        data_simplification=spec.npu_simplify,
    )
    with profiler.profile(
        activities=[*activities, profiler.ProfilerActivity.NPU],
        record_shapes=spec.record_shapes,
        with_stack=spec.with_stack,
        profile_memory=spec.with_memory,
        experimental_config=config,
        on_trace_ready=profiler.tensorboard_trace_handler(
            str(folder), worker_name=name, analyse_flag=spec.npu_analyse
        ),
    ) as recorder:
        yield recorder
    say(f"profile in {folder}")
