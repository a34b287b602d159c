"""Every whole number of a spec has an upper limit, or makes neither memory nor work by its size."""

from __future__ import annotations

import typing
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch

from experiments import tiny, tiny_high
from mm_config.cli.exits import exit_status
from mm_config.planning.plan import plan
from mm_config.schema.errors import UserError
from mm_config.schema.evolve import leaves, replace
from mm_config.schema.fields import field_types, info_of, spec_fields
from mm_config.specs.requests import GenerationRequest
from mm_config.stored.structuring import known_specs

FREE = frozenset(
    (
        *("seed", "seeds", "revision", "steps", "every_steps", "start_step", "end_step", "warmup_steps"),
        *("decay_steps", "keep_last", "keep_every", "log_every", "max_entries", "max_skipped", "ranks"),
        *("dense_steps", "dense_layers", "window", "block_size", "group_size", "prefetch"),
        *("frame_interval", "min_num_frames", "size_multiple", "min_pixels"),
        *("reshard_size", "shard_size", "forward_prefetch", "backward_prefetch"),
        *("ulysses", "ring", "tensor", "data", "npu", "first", "last", "visible_devices"),
        *("max_split_size_mb", "large_segment_size_mb", "roundup_power2_divisions"),
        *(
            "max_bad_clips",
            "prefetch_mib",
            "tokens_per_batch",
            "shuffle_block",
            "piece_frames",
            "piece_stride",
        ),
        *("hccl_event_timeout", "hccl_buffer_mb", "timeout_seconds"),
    )
)
"""Names of numbers that are compared, divided, handed on or counted to step by step, or that are keys."""
FAMILIES = ("mm_config.", "mm_data.", "mm_models.", "mm_train.", "mm_infer.")


def holds_int(annotation: Any) -> bool:
    return annotation is int or any(holds_int(part) for part in typing.get_args(annotation))


def test_every_whole_number_has_a_limit_or_needs_none() -> None:
    unlimited = {
        attribute.name
        for cls in known_specs().values()
        if cls.__module__.startswith(FAMILIES)
        for attribute in spec_fields(cls)
        if holds_int(field_types(cls)[attribute.name]) and info_of(attribute).le is None
    }
    assert unlimited == FREE


def test_a_sampler_of_a_million_million_steps_is_a_line() -> None:
    with pytest.raises(UserError, match=r"^spec\.sampler\.steps: must be <= 100000, got 1000000000000$"):
        replace(tiny.SPEC, "sampler.steps", 10**12)


def test_a_prompt_of_a_megabyte_is_a_line() -> None:
    assert GenerationRequest(prompt="x" * 2**20).prompt
    with pytest.raises(UserError, match=r"^prompt: must have at most 1048576 characters, got 1048577$"):
        GenerationRequest(prompt="x" * (2**20 + 1))


@pytest.mark.parametrize("take", [lambda: bytearray(2**62), lambda: torch.empty(2**60)])
def test_memory_that_runs_out_is_a_line(take: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(lambda: len(take())) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("memory ran out")


@pytest.mark.slow
@pytest.mark.parametrize("spec", [tiny.SPEC, tiny_high.SPEC])
def test_no_number_keeps_a_plan_from_ending(spec: Any) -> None:
    for leaf in leaves(spec, by_hash=False):
        if type(leaf.value) is int:
            with suppress(UserError):
                plan(replace(spec, leaf.path, 2**62))
