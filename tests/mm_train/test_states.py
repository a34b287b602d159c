"""States that are finite or not committed, and old ones that go without harm."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import attach
from mm_config.runs.record import RunStatus
from mm_config.schema.errors import UserError
from mm_config.specs.train import TrainSpec
from mm_models import checkpoint
from mm_models.blocks import entry_of
from mm_models.manifest import write_manifest
from mm_models.ranks import Ranks
from mm_train import states
from mm_train.states import TrainState

ALONE = Ranks(0, 1, grouped=False)


@pytest.fixture
def brief(small: TrainSpec) -> TrainSpec:
    kept = {"checkpoint.every_steps": 1, "checkpoint.keep_last": 9}
    return replace(small, {"schedule.steps": 4, "schedule.warmup_steps": 1, **kept})


def folder_of(options: RunOptions, spec: TrainSpec) -> Path:
    (folder,) = (options.runs_dir / spec.name).iterdir()
    return folder


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").iterdir())


BROKEN = {
    "a weight on the way": (3, "", "nan", False),
    "a second moment at the end": (4, ".exp_avg_sq", "inf", False),
    "a copy of a second moment": (4, ".exp_avg_sq", "inf", True),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_state_that_is_not_finite_is_not_saved_and_the_one_before_is_resumed(
    brief: TrainSpec, options: RunOptions, losses_of: Callable[[Path], list[float]], case: str
) -> None:
    at, moment, value, beside = BROKEN[case]
    spec = replace(brief, {"name": f"not_finite_{at}_{beside}", "checkpoint.asynchronous": beside})
    update, count = AdamW.step, 0

    def broken(self: AdamW, *args: object) -> None:
        nonlocal count
        update(self, *args)
        count += 1
        parameter = self.param_groups[0]["params"][0]
        tensor = self.state[parameter][moment[1:]] if moment else parameter.data
        if count == at:
            tensor.view(-1)[-1] = float(value)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(UserError) as caught:
        patched.setattr(AdamW, "step", broken)
        mm_train.train(spec, options)
    folder = folder_of(options, spec)
    assert str(caught.value) == (
        f"step {at}: scale_shift_table{moment} is not finite after the update; this state is not saved. "
        f"The last good state is {folder / 'checkpoints' / f'step-0000000{at - 1}'}; "
        "a lower spec.optim.lr may help"
    )
    assert attach(folder).record.status is RunStatus.FAILED
    assert steps_in(folder) == list(range(1, at))

    resumed = mm_train.train(spec, attrs.evolve(options, resume=str(folder)))
    assert resumed.run_dir == folder
    assert losses_of(folder) == losses_of(mm_train.train(replace(spec, "name", "whole"), options).run_dir)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_number_that_is_not_finite_is_found_and_no_other(value: str, dtype: torch.dtype) -> None:
    network = nn.ParameterDict({name: torch.randn(5, 7, dtype=dtype) for name in ("first", "second")})
    network["none"], network["whole"] = torch.empty(0), nn.Parameter(torch.ones(2).int(), requires_grad=False)
    optimizer = AdamW([network["first"]])
    with torch.no_grad():
        network["first"][0, 0], network["first"][1, 1] = torch.finfo(dtype).max, torch.finfo(dtype).min
        assert states.not_finite(states.saved_shards(network, optimizer), ALONE) == []
        network["second"][3, 2] = float(value)
    assert states.not_finite(states.saved_shards(network, optimizer), ALONE) == ["second"]


def test_resuming_a_run_that_was_killed_before_old_states_were_removed_removes_them(
    brief: TrainSpec, options: RunOptions
) -> None:
    spec = replace(brief, {"name": "killed_late", "checkpoint.keep_last": 1})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(states, "prune", lambda newest, keep: None)
        mm_train.train(spec, options)
    folder = folder_of(options, spec)
    assert steps_in(folder) == [1, 2, 3, 4]
    mm_train.train(spec, attrs.evolve(options, resume=str(folder)))
    assert steps_in(folder) == [4]


def _save_what_one_rank_broke(rank: int, spec: TrainSpec, folder: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    fully_shard(network, mesh=init_device_mesh("cpu", (2,)))
    optimizer = AdamW(network.parameters())
    network(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    ranks = Ranks(rank, 2, grouped=True)
    states.save(folder, spec, network, optimizer, TrainState(1, {}, 0.0), ranks)
    if rank == 1:
        weight = network.get_parameter("1.weight")
        assert isinstance(weight, DTensor)
        weight.to_local().detach()[0, 0] = float("inf")
    with pytest.raises(UserError, match=r"step 2: 1\.weight is not finite after the update"):
        states.save(folder, spec, network, optimizer, TrainState(2, {}, 0.0), ranks)


def test_what_is_not_finite_on_one_rank_is_saved_by_none(
    small: TrainSpec, tmp_path: Path, run_ranks: Callable[..., None]
) -> None:
    run_ranks(_save_what_one_rank_broke, small, tmp_path)
    assert [path.name for path in checkpoint.newest_first(tmp_path)] == ["step-00000001"]


def _save_where_one_rank_can_not(rank: int, spec: TrainSpec, folder: Path) -> None:
    network = nn.Linear(256, 256)
    fully_shard(network, mesh=init_device_mesh("cpu", (2,)))
    optimizer, ranks = AdamW(network.parameters()), Ranks(rank, 2, grouped=True)

    def save(step: int) -> None:
        states.save(folder, spec, network, optimizer, TrainState(step, {}, 0.0), ranks)

    save(1)
    no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    if rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64_000, no_limit[1]))
    with pytest.raises(UserError, match="step-00000002: the checkpoint can't be written: File too large"):
        save(2)
    resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
    if rank == 1:
        checkpoint.write_shards = unwritable
    with pytest.raises(UserError, match="step-00000003: the checkpoint can't be written: Input/output"):
        save(3)


def unwritable(path: Path, shards: object) -> dict[str, object]:
    raise OSError(5, "Input/output error", str(path))


def test_what_one_rank_can_not_write_is_one_line_on_all(
    small: TrainSpec, tmp_path: Path, run_ranks: Callable[..., None]
) -> None:
    run_ranks(_save_where_one_rank_can_not, small, tmp_path)
    (kept,) = checkpoint.newest_first(tmp_path)
    assert (kept.name, checkpoint.verify(kept)) == ("step-00000001", [])


def saved(folder: Path, spec: TrainSpec, step: int) -> Path:
    network = nn.Linear(4, 4)
    optimizer = AdamW(network.parameters())
    network(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    data = {"digest": "0" * 64, "step": step}
    return states.save(folder, spec, network, optimizer, TrainState(step, data, 0.0), ALONE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"step": 1, "data": {"digest": "a", "step": 1}, "seconds": NaN}', "is no JSON"),
        ("[]", "holds no JSON object but a list"),
        ('{"step": 1, "seconds": 0}', "has no data, data.digest, data.step"),
        ('{"step": "1", "data": {"digest": "a", "step": 1}, "seconds": 0}', "step is str '1'"),
        ('{"step": 2, "data": {"digest": "a", "step": 2}, "seconds": 0}', "says step 2"),
    ],
)
def test_a_state_that_no_training_wrote_is_damage_whatever_its_digests_say(
    small: TrainSpec, tmp_path: Path, text: str, said: str
) -> None:
    folder = saved(tmp_path, small, 1)
    assert states.damage_of(folder) == ""
    (folder / "state.json").write_text(text)
    (folder / "manifest.json").unlink()
    names = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    write_manifest(folder, {path.relative_to(folder).as_posix(): entry_of(path) for path in names}, 1)
    assert said in states.damage_of(folder)


def test_a_pipe_in_a_checkpoint_is_damage(small: TrainSpec, tmp_path: Path) -> None:
    folder = saved(tmp_path, small, 1)
    os.mkfifo(folder / "model" / "more.safetensors")
    assert states.damage_of(folder) == "model/more.safetensors is not in manifest.json"


def test_an_old_checkpoint_that_can_not_be_removed_is_a_warning(
    small: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(small, "checkpoint.keep_last", 1)
    old = saved(tmp_path, spec, 1)
    unlink = os.unlink

    def fails(path: str, *args: object, **kwargs: object) -> None:
        if path == "manifest.json":
            raise OSError(5, "Input/output error")
        unlink(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", fails)
        newest = saved(tmp_path, spec, 2)
    assert capsys.readouterr().out == (
        f"{old} is no longer needed and can't be removed: Input/output error\n"
    )
    assert checkpoint.newest_first(tmp_path) == [newest]
    # What is left has no committed name, and goes with the next one.
    (left,) = {*tmp_path.iterdir()} - {newest}
    assert left.name.startswith(".step-00000001.")
    (tmp_path / "step-00000009.tmp").mkdir()
    (tmp_path / "first-step-3.tmp").mkdir()
    assert {saved(tmp_path, spec, 3), tmp_path / "first-step-3.tmp"} == {*tmp_path.iterdir()}
    assert capsys.readouterr().out == ""


def test_the_disk_holds_metrics_before_a_state_takes_its_name(
    brief: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut leaves NULs in the metrics of a state that is intact."""
    synced: list[tuple[str, int]] = []
    fsync, rename = os.fsync, Path.rename

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if name.name == "metrics.jsonl":
            synced.append(("metrics", len(name.read_text().splitlines())))

    def named(self: Path, target: Path) -> Path:
        if target.name.startswith("step-"):
            synced.append(("state", int(target.name[-8:])))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", named)
    mm_train.train(brief, options)
    expected = [(what, step) for step in (1, 2, 3, 4) for what in ("metrics", "state")]
    assert [one for one in synced if one[1]] == expected
