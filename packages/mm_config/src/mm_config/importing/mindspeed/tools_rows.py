"""Rows of tools.json."""

from __future__ import annotations

from typing import Any

from mm_config.importing.mindspeed.words import NPU_LEVEL, STACKS
from mm_config.importing.rows import Row, dead, derived, group, mapped, of_kind
from mm_config.importing.values import optional, switch, text, whole
from mm_config.schema.types import is_tuple

_STATIC = "profile.static_param"


def _ranks(value: Any) -> tuple[int, ...]:
    if not is_tuple(value):
        raise ValueError("expected a list of ranks, or [-1] for all")
    return () if value == (-1,) else tuple(map(whole, value))


_PROFILER: tuple[Row, ...] = (
    *group("profile", "profile.static_param", "profile.dynamic_param"),
    mapped("profile.enable", "profiler", None),
    derived("profile.profile_type", "a window of steps is recorded", "static", when="profile"),
    mapped("profile.ranks", "profiler.ranks", _ranks, when="profile"),
    mapped(f"{_STATIC}.level", "profiler.npu_level", NPU_LEVEL, when="profile"),
    mapped(f"{_STATIC}.with_stack", "profiler.with_stack", switch, when="profile"),
    mapped(f"{_STATIC}.with_memory", "profiler.with_memory", switch, when="profile"),
    mapped(f"{_STATIC}.record_shapes", "profiler.record_shapes", switch, when="profile"),
    mapped(f"{_STATIC}.with_cpu", "profiler.with_cpu", switch, when="profile"),
    derived(f"{_STATIC}.save_path", "recordings lie in the run folder, in profiler.folder", when="profile"),
    mapped(f"{_STATIC}.start_step", "profiler.start_step", whole, when="profile"),
    mapped(f"{_STATIC}.end_step", "profiler.end_step", whole, when="profile"),
    mapped(f"{_STATIC}.data_simplification", "profiler.npu_simplify", switch, when="profile"),
    mapped(f"{_STATIC}.aic_metrics_type", "profiler.npu_aic_metrics", text, when="profile"),
    mapped(f"{_STATIC}.analyse_flag", "profiler.npu_analyse", switch, when="profile"),
    dead("profile.dynamic_param.config_path", "of dynamic profiling, which is off"),
)

_MEMORY: tuple[Row, ...] = (
    *group("memory_profile"),
    mapped("memory_profile.enable", "memory_snapshot", None),
    mapped("memory_profile.start_step", "memory_snapshot.start_step", whole, when="memory"),
    mapped("memory_profile.end_step", "memory_snapshot.end_step", whole, when="memory"),
    derived(
        "memory_profile.save_path",
        "snapshots lie in the run folder, in memory_snapshot.folder",
        when="memory",
    ),
    mapped("memory_profile.dump_ranks", "memory_snapshot.ranks", _ranks, when="memory"),
    mapped("memory_profile.stacks", "memory_snapshot.stacks", STACKS, when="memory"),
    mapped("memory_profile.max_entries", "memory_snapshot.max_entries", optional(whole), when="memory"),
    derived("memory_profile.mem_info", "the metrics of each step hold the memory in use", True, False),
)

TOOLS: tuple[Row, ...] = of_kind(
    "tools.json",
    *_PROFILER,
    *_MEMORY,
    *group("sorafeature"),
    dead("sorafeature.save_path", "only the extraction of features reads it"),
    dead("sorafeature.extract_video_feature", "is documented, but nothing reads it"),
    dead("sorafeature.extract_text_feature", "is documented, but nothing reads it"),
)
