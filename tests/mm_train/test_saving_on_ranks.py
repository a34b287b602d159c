"""States that two ranks write beside the steps; what fails on one of them ends both by one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.train import TrainSpec
from mm_models import checkpoint, shards
from mm_train import states
from tests.forked_ranks import RunRanks


@pytest.fixture
def short(small: TrainSpec) -> TrainSpec:
    changes = {"checkpoint.every_steps": 1, "checkpoint.asynchronous": True, "checkpoint.keep_last": 9}
    return replace(small, {"schedule.steps": 3, "schedule.warmup_steps": 1, **changes})


def saved_in(options: RunOptions, spec: TrainSpec) -> list[Path]:
    (folder,) = (options.runs_dir / spec.name).iterdir()
    return checkpoint.newest_first(folder / "checkpoints")[::-1]


def _both_ways(rank: int, spec: TrainSpec, options: RunOptions) -> None:
    mm_train.train(replace(spec, "name", "two_beside"), options)
    mm_train.train(replace(spec, {"name": "two_waited", "checkpoint.asynchronous": False}), options)


def test_two_ranks_write_beside_the_steps_what_they_write_when_these_wait(
    short: TrainSpec, options: RunOptions, run_ranks: RunRanks
) -> None:
    run_ranks(_both_ways, short, options)
    beside, waited = (
        saved_in(options, replace(short, "name", name)) for name in ("two_beside", "two_waited")
    )
    assert [states.step_of(path) for path in beside] == [1, 2, 3]
    for ours, theirs in zip(beside, waited, strict=True):
        assert checkpoint.verify(ours) == []
        files = sorted(path.relative_to(ours) for path in ours.rglob("*.safetensors"))
        assert len(files) == 4
        for file in files:
            found, expected = load_file(ours / file), load_file(theirs / file)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in found)


def _full_on_the_second(rank: int, spec: TrainSpec, options: RunOptions) -> None:
    write, reached = shards.write_shards, list[int]()

    def full(path: Path, own: Any) -> dict[str, Any]:
        if rank == 1 and "step-00000002" in str(path):
            raise OSError(28, "No space left on device", str(path))
        return write(path, own)

    checkpoint.write_shards = full  # type: ignore[assignment]
    with pytest.raises(UserError) as caught:
        mm_train.train(spec, options, lambda step: reached.append(step.step))
    where = saved_in(options, spec)[0].with_name("step-00000002")
    assert str(caught.value) == f"{where}: the checkpoint can't be written: No space left on device"
    assert reached == [1, 2, 3]


def _not_finite_on_the_second(rank: int, spec: TrainSpec, options: RunOptions) -> None:
    update, count = AdamW.step, 0

    def broken(self: AdamW, *args: object) -> None:
        nonlocal count
        update(self, *args)
        count += 1
        moment = self.state[self.param_groups[0]["params"][-1]]["exp_avg"]
        assert isinstance(moment, DTensor)
        if rank == 1 and count == 2:
            moment.to_local().view(-1)[0] = float("nan")

    AdamW.step = broken  # type: ignore[assignment,method-assign]
    with pytest.raises(UserError, match=r"step 2: .*exp_avg is not finite .* is not saved.*step-00000001"):
        mm_train.train(spec, options)


@pytest.mark.parametrize(
    "fails", [_full_on_the_second, pytest.param(_not_finite_on_the_second, marks=pytest.mark.slow)]
)
def test_what_fails_on_one_rank_is_one_line_on_both_and_the_one_before_stays(
    short: TrainSpec, options: RunOptions, run_ranks: RunRanks, fails: Any
) -> None:
    spec = replace(short, "name", fails.__name__.strip("_"))
    run_ranks(fails, spec, options)
    (left,) = saved_in(options, spec)
    assert (left.name, checkpoint.verify(left)) == ("step-00000001", [])
