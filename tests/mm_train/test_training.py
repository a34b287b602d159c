"""Whole trainings in one process: what they learn, log and leave behind."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mm_models
import mm_train
from experiments import tiny_low
from mm_config import exact_hash, replace, spec_hash
from mm_config.options.run_options import RunOptions
from mm_config.running import runners
from mm_config.runs.folder import attach
from mm_config.runs.record import RunStatus
from mm_config.schema.errors import SpecError, UserError
from mm_config.specs.data import Cache
from mm_config.specs.dtype import Dtype
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import TrainedBy
from mm_data import prepare
from mm_models import checkpoint
from mm_train.optim import learning_rate

Metrics = Callable[[Path], list[dict[str, Any]]]
Losses = Callable[[Path], list[float]]


def resumed(options: RunOptions, run_dir: Path | str) -> RunOptions:
    return attrs.evolve(options, resume=str(run_dir))


def tensors_of(folder: Path) -> dict[str, Tensor]:
    # Copies: what load_file gives is mapped from the file and changes with it.
    files = [load_file(file) for group in ("model", "optimizer") for file in (folder / group).iterdir()]
    return {name: tensor.clone() for file in files for name, tensor in file.items()}


def test_the_loss_falls_on_real_clips_and_the_run_folder_tells_all(
    small: TrainSpec, options: RunOptions, metrics_of: Metrics
) -> None:
    spec = replace(small, {"schedule.steps": 150, "checkpoint.every_steps": 40})
    random_state = torch.get_rng_state()
    result = mm_train.train(spec, options)
    # Every number is keyed: nothing is drawn from the shared stream, so it is no part of the state.
    assert torch.equal(torch.get_rng_state(), random_state)

    lines = metrics_of(result.run_dir)
    losses = [line["loss"] for line in lines]
    assert sum(losses[-30:]) < 0.9 * sum(losses[:30])
    assert [line["step"] for line in lines] == list(range(1, 151))
    for index, line in enumerate(lines):
        assert line["lr"] == learning_rate(index, spec.optim.lr, spec.schedule)
        assert line["grad_norm"] > 0
        assert 0 <= line["data_wait_seconds"] < line["step_seconds"]
        assert line["samples_per_second"] == pytest.approx(8 / line["step_seconds"])

    kept = sorted(path.name for path in (result.run_dir / "checkpoints").iterdir())
    assert kept == ["step-00000120", "step-00000150"]
    assert checkpoint.verify(result.checkpoint) == []
    assert checkpoint.read_state(result.checkpoint)["step"] == 150
    content = json.loads(result.result_path.read_text())
    assert content.pop("seconds") == result.seconds > 0
    assert content.pop("peak_gib") == result.peak_gib > 0
    assert content.pop("made_of") == attach(result.run_dir).record.made_of
    assert content == {
        "kind": "train",
        "spec_hash": spec_hash(spec),
        "exact_hash": exact_hash(spec),
        "steps": 150,
        "loss": pytest.approx(sum(losses[-50:]) / 50),
        "checkpoint": "checkpoints/step-00000150",
        "quarantined": 0,
        "data_digest": prepare(spec.data.dataset, cache_dir=options.cache_dir).order_key,
    }
    assert attach(result.run_dir).record.status is RunStatus.FINISHED


def test_a_resumed_run_continues_bit_for_bit(
    small: TrainSpec, options: RunOptions, losses_of: Losses
) -> None:
    spec = replace(small, "checkpoint.every_steps", 8)
    whole = mm_train.train(spec, options)
    expected = losses_of(whole.run_dir)
    expected_state = tensors_of(whole.checkpoint)

    for folder in sorted((whole.run_dir / "checkpoints").iterdir())[1:]:
        # A flipped byte: the newest state that is whole has to be used.
        file = next((folder / "model").iterdir())
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    # With another cadence a state is written before the step of the damaged one, and is not judged by it.
    again = mm_train.train(replace(spec, "checkpoint.every_steps", 9), resumed(options, "latest"))

    kept = sorted(path.name for path in (whole.run_dir / "checkpoints").iterdir())
    assert kept == ["step-00000018", "step-00000020", "step-00000020.damaged"]
    assert again.run_dir == whole.run_dir
    assert losses_of(again.run_dir) == expected
    state = tensors_of(again.checkpoint)
    assert set(state) == set(expected_state)
    assert all(torch.equal(state[name], expected_state[name]) for name in state)
    assert again.loss == whole.loss


def test_resuming_with_another_spec_names_the_fields(small: TrainSpec, options: RunOptions) -> None:
    spec = replace(small, {"schedule.steps": 2, "schedule.warmup_steps": 0})
    result = mm_train.train(spec, options)
    with pytest.raises(SpecError) as refused:
        mm_train.train(replace(spec, "optim.lr", 1e-4), resumed(options, "latest"))
    assert "spec.optim.lr" in {problem.path for problem in refused.value.problems}
    assert "0.0001" in str(refused.value)
    assert "0.005" in str(refused.value)
    assert attach(result.run_dir).record.status is RunStatus.FINISHED


def test_an_equal_finished_run_is_reported_instead_of_run_again(
    small: TrainSpec, options: RunOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(small, {"schedule.steps": 2, "schedule.warmup_steps": 1})
    # A folder of its own: another test may have made an equal run in the one that all share.
    needed = attrs.evolve(options, if_needed=True, runs_dir=tmp_path / "runs")
    first = runners.run(spec, needed)
    printed = capsys.readouterr().out
    assert spec_hash(spec)[:12] in printed
    assert "step-00000002" in printed
    second = runners.run(replace(spec, {"runtime.log_every": 1, "name": "other"}), needed)
    assert (first.reused, second.reused) == (False, True)
    assert second.run_dir == first.run_dir


@pytest.mark.parametrize("cache", list(Cache))
def test_micro_batches_and_caches_change_no_loss(
    cache: Cache, small: TrainSpec, options: RunOptions, losses_of: Losses
) -> None:
    spec = replace(small, "schedule.steps", 6)
    whole = losses_of(mm_train.train(spec, options).run_dir)
    split = replace(spec, {"runtime.micro_batch_size": 2, "data.cache": cache})
    assert losses_of(mm_train.train(split, options).run_dir) == pytest.approx(whole, rel=1e-5)


def test_bfloat16_on_one_process_computes_in_bfloat16_and_keeps_float32_weights(
    small: TrainSpec, options: RunOptions, losses_of: Losses
) -> None:
    spec = replace(small, {"schedule.steps": 6, "precision.compute": Dtype.BFLOAT16})
    exact = losses_of(mm_train.train(replace(spec, "precision.compute", Dtype.FLOAT32), options).run_dir)
    result = mm_train.train(spec, options)
    rough = losses_of(result.run_dir)
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.02)
    wide = losses_of(mm_train.train(replace(spec, "precision.float32_residual", True), options).run_dir)
    assert rough != wide == pytest.approx(exact, rel=0.02)
    network = mm_models.build(spec.model, device="cpu")
    mm_models.load(network, result.checkpoint)
    values = torch.cat([parameter.flatten() for parameter in network.parameters()])
    assert not torch.equal(values, values.bfloat16().float())
    assert not torch.distributed.is_initialized()


def test_a_second_expert_starts_from_the_first_which_is_trained_where_it_is_missing(
    small: TrainSpec, options: RunOptions
) -> None:
    high = replace(small, {"schedule.steps": 3, "schedule.warmup_steps": 1, "seed": 5})
    low = replace(
        high,
        {
            "name": "second_expert",
            "expert": tiny_low.SPEC.expert,
            "start_from": TrainedBy(spec=high),
            # A rate this small leaves the start weights visible in the result.
            "optim.lr": 1e-12,
        },
    )
    with pytest.raises(UserError, match=r"spec\.start_from"):
        mm_train.train(low, options)
    result = mm_train.train(replace(low, "runtime.build_missing", True), options)
    first = mm_train.train(high, options)
    networks = [mm_models.build(small.model, device="cpu") for _ in range(2)]
    for network, trained in zip(networks, (first, result), strict=True):
        mm_models.load(network, trained.checkpoint)
    for ours, theirs in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_a_loss_that_is_not_finite_stops_before_the_update_and_keeps_the_last_state(
    small: TrainSpec, options: RunOptions, metrics_of: Metrics
) -> None:
    spec = replace(small, {"optim.lr": 1e18, "schedule.warmup_steps": 0, "checkpoint.every_steps": 1})
    with pytest.raises(UserError, match=r"step \d+: the loss is .*nothing was updated.*Samples: \d+"):
        mm_train.train(spec, options)
    folder = max((options.runs_dir / spec.name).iterdir())
    assert attach(folder).record.status is RunStatus.FAILED
    lines = metrics_of(folder)
    assert all(math.isfinite(line["loss"]) for line in lines)
    last = checkpoint.latest(folder / "checkpoints")
    assert last is not None
    assert checkpoint.read_state(last)["step"] == len(lines)


def test_micro_batches_that_do_not_divide_the_batch_are_refused_before_a_folder_is_made(
    small: TrainSpec, options: RunOptions
) -> None:
    with pytest.raises(SpecError, match=r"spec\.runtime\.micro_batch_size"):
        mm_train.train(replace(small, "runtime.micro_batch_size", 3), options)
    assert not (options.runs_dir / small.name).exists()
