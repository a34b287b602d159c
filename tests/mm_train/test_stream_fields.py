"""What waits ahead changes nothing that is learnt; batches of several shapes are the same on any ranks."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

import mm_train
from mm_config import replace
from mm_config.options import RunOptions, StoppedEarly
from mm_config.specs import TrainSpec

STEPS = 6


def steps_of(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def losses_of(run_dir: Path) -> list[float]:
    return [step["loss"] for step in steps_of(run_dir)]


def test_what_waits_ahead_and_where_changes_no_loss(mixed: TrainSpec, options: RunOptions) -> None:
    plain = mm_train.train(mixed, options)
    ahead = {
        "data.prefetch": 3,
        "data.prefetch_mib": 1,
        "data.pin_memory": True,
        "data.workers": 1,
        "data.max_bad_clips": 0,
    }
    assert losses_of(mm_train.train(replace(mixed, ahead), options).run_dir) == losses_of(plain.run_dir)
    seen = {round(step["samples_per_second"] * step["step_seconds"]) for step in steps_of(plain.run_dir)}
    assert seen == {4, 8}, "samples are those of the step's own batch"


def test_two_ranks_and_micro_batches_go_on_with_what_one_began(
    mixed: TrainSpec, options: RunOptions, run_ranks
) -> None:
    whole = losses_of(mm_train.train(mixed, options).run_dir)
    with pytest.raises(StoppedEarly):
        mm_train.train(mixed, attrs.evolve(options, stop_after=3))
    run_ranks(_go_on, replace(mixed, "runtime.micro_batch_size", 1), attrs.evolve(options, resume="latest"))
    resumed = max((options.runs_dir / mixed.name).iterdir())
    assert losses_of(resumed) == pytest.approx(whole, rel=1e-4)


def _go_on(rank: int, spec: TrainSpec, options: RunOptions) -> None:
    assert mm_train.train(spec, options).steps == STEPS
