"""Which state is resumed where some are damaged, what is said of it, and that none is lost."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import torch.distributed as dist
from torch.optim import AdamW

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.train import TrainSpec
from mm_train.training import TrainResult

Losses = Callable[[Path], list[float]]


@pytest.fixture
def brief(small: TrainSpec) -> TrainSpec:
    kept = {"checkpoint.every_steps": 1, "checkpoint.keep_last": 2}
    return replace(small, {"schedule.steps": 3, "schedule.warmup_steps": 1, **kept})


@pytest.fixture
def trained(brief: TrainSpec, options: RunOptions) -> TrainResult:
    return mm_train.train(brief, options)


def again(options: RunOptions, restart: bool = False) -> RunOptions:
    return attrs.evolve(options, resume="latest", restart=restart)


def lengthen(checkpoint: Path) -> tuple[str, str]:
    """Damages a state; returns its path and what is to be said of it."""
    file = checkpoint / "state.json"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes() + b"x")
    return str(checkpoint), f"state.json has {size + 1} bytes, {size} were written"


def content_of(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_damaged_state_is_named_passed_over_and_kept(
    brief: TrainSpec,
    options: RunOptions,
    trained: TrainResult,
    losses_of: Losses,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected, before = losses_of(trained.run_dir), content_of(trained.checkpoint)
    path, damage = lengthen(trained.checkpoint)
    damaged = content_of(trained.checkpoint)
    capsys.readouterr()
    mm_train.train(brief, again(options))
    said = capsys.readouterr().out
    assert f"passed over {path}: {damage}; it is kept as step-00000003.damaged\n" in said
    assert f"resuming {trained.run_dir} after step 2\n" in said
    assert losses_of(trained.run_dir) == expected
    assert content_of(trained.checkpoint).keys() == before.keys()
    assert content_of(trained.checkpoint.with_name("step-00000003.damaged")) == damaged
    mm_train.train(brief, again(options))
    assert "passed over" not in capsys.readouterr().out


@pytest.mark.parametrize("how", ["damaged", "removed"])
def test_with_no_state_left_nothing_is_started_over_the_remains(
    brief: TrainSpec, options: RunOptions, trained: TrainResult, how: str
) -> None:
    folder = trained.checkpoint.parent
    told: list[tuple[str, str]] = []
    if how == "removed":
        shutil.rmtree(folder)
    else:
        told = [lengthen(path) for path in sorted(folder.iterdir(), reverse=True)]
    before = content_of(trained.run_dir)
    with pytest.raises(UserError) as caught:
        mm_train.train(brief, again(options))
    first, *others = caught.value.problems
    assert str(first) == (
        f"options.resume: {trained.run_dir} has no intact checkpoint left; "
        "with options.restart a new run is made"
    )
    assert [(problem.path, problem.message) for problem in others] == told
    assert content_of(trained.run_dir) == before

    new = mm_train.train(brief, again(options, restart=True))
    assert new.run_dir != trained.run_dir
    assert new.loss == trained.loss
    assert content_of(trained.run_dir) == before
    # Told the same again, a queue goes on with the new one.
    assert mm_train.train(brief, again(options, restart=True)).run_dir == new.run_dir


def test_restart_makes_a_run_where_there_is_none_and_nowhere_else(
    brief: TrainSpec, options: RunOptions
) -> None:
    with pytest.raises(UserError, match=r"options\.resume: no run 'latest'"):
        mm_train.train(brief, again(options))
    first = mm_train.train(brief, again(options, restart=True))
    assert mm_train.train(brief, again(options, restart=True)).run_dir == first.run_dir
    for wrong in ("elsewhere", "latest"):
        other = brief if wrong == "elsewhere" else replace(brief, "seed", 7)
        with pytest.raises(UserError, match=r"no run 'elsewhere'|spec\.seed: was 0"):
            mm_train.train(other, attrs.evolve(options, resume=wrong, restart=True))


def test_a_run_that_ended_before_its_first_state_begins_in_its_own_folder(
    brief: TrainSpec, options: RunOptions, losses_of: Losses, capsys: pytest.CaptureFixture[str]
) -> None:
    late = replace(brief, "checkpoint.every_steps", 9)
    update = AdamW.step

    def ends(self: AdamW, *args: object) -> None:
        update(self, *args)
        if len(self.state) and self.state[self.param_groups[0]["params"][0]]["step"] == 2:
            raise RuntimeError

    with pytest.MonkeyPatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(AdamW, "step", ends)
        mm_train.train(late, options)
    (folder,) = (options.runs_dir / late.name).iterdir()
    assert len(losses_of(folder)) == 1
    resumed = mm_train.train(replace(late, "checkpoint.every_steps", 1), again(options, restart=True))
    assert resumed.run_dir == folder
    assert len(losses_of(folder)) == 3
    assert f"{folder} has no checkpoint yet; it begins anew\n" in capsys.readouterr().out


def _resume_on_ranks(rank: int, spec: TrainSpec, options: RunOptions, told: list[tuple[str, str]]) -> None:
    with pytest.raises(UserError) as caught:
        mm_train.train(spec, again(options))
    assert [(problem.path, problem.message) for problem in caught.value.problems[1:]] == told
    dist.barrier()
    if rank == 0:
        whole = Path(told[1][0]) / "state.json"
        whole.write_bytes(whole.read_bytes()[:-1])
    dist.barrier()
    resumed = mm_train.train(spec, again(options))
    assert resumed.checkpoint.name == "step-00000003"


def test_ranks_refuse_together_and_pass_over_together(
    brief: TrainSpec, options: RunOptions, trained: TrainResult, run_ranks: Callable[..., None]
) -> None:
    folder = trained.checkpoint.parent
    told = [lengthen(path) for path in sorted(folder.iterdir(), reverse=True)]
    run_ranks(_resume_on_ranks, brief, options, told)
    kept = sorted(path.name for path in folder.iterdir())
    assert kept == ["step-00000002", "step-00000003", "step-00000003.damaged"]


@pytest.mark.parametrize("damage", ["deleted", "NUL"])
def test_a_run_goes_on_without_its_metrics(
    brief: TrainSpec,
    options: RunOptions,
    trained: TrainResult,
    losses_of: Losses,
    damage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    metrics = trained.run_dir / "metrics.jsonl"
    losses = losses_of(trained.run_dir)
    if damage == "deleted":
        metrics.unlink()
        lost, loss = "3 of 3 steps, the first is step 1", None
    else:
        line, *rest = metrics.read_bytes().splitlines(keepends=True)
        metrics.write_bytes(b"".join([bytes(len(line) - 1), b"\n", *rest]))
        lost, loss = "1 of 3 steps, the first is step 1", sum(losses[1:]) / 2
    capsys.readouterr()
    resumed = mm_train.train(brief, again(options))
    assert f"{metrics} has lost {lost}\n" in capsys.readouterr().out
    assert resumed.loss == loss
