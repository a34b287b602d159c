"""The loss on held-out clips: what it is, that it changes nothing, and what it keeps."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mm_models
import mm_train
from experiments import tiny_high
from mm_config import replace
from mm_config.options import Locations, StoppedEarly
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.data import Cache
from mm_config.specs.dtype import Dtype
from mm_config.specs.monitoring import ValidationSpec
from mm_config.specs.optim import EmaSpec
from mm_config.specs.train import TrainSpec
from mm_data import Asked, load_clip, plan_of, prepare, to_model_range
from mm_data.plan.holding_out import held_out
from mm_models import checkpoint
from mm_train import loop, states
from tests.forked_ranks import RunRanks
from tests.mm_train.conftest import SMALL

Lines = list[dict[str, Any]]
BOUNDARY = 0.875
VALIDATION = ValidationSpec(every_steps=2, batches=3, holdout=0.45, sigmas=(0.95, 0.3, 0.9))
CHANGES: dict[str, Any] = {
    **SMALL,
    "validation": VALIDATION,
    "data.batch_size": 4,
    "schedule.steps": 3,
    "checkpoint.every_steps": 2,
}


@pytest.fixture
def spec(request: pytest.FixtureRequest) -> TrainSpec:
    return replace(tiny_high.SPEC, {**CHANGES, "name": request.node.name.partition("[")[0]})


@pytest.fixture(scope="module")
def whole(runs_dir: Path) -> mm_train.TrainResult:
    """A run that nothing interrupts."""
    return mm_train.train(
        replace(tiny_high.SPEC, {**CHANGES, "name": "whole"}), RunOptions(runs_dir=runs_dir)
    )


def validations(run_dir: Path) -> Lines:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "validation" in line]


def numbers(run_dir: Path) -> Lines:
    """The validations without their times."""
    lines = validations(run_dir)
    for line in lines:
        assert line["validation"].pop("seconds") > 0
    return lines


def group_of(folder: Path, group: str) -> dict[str, Tensor]:
    files = sorted((folder / group).iterdir())
    return {name: tensor.clone() for file in files for name, tensor in load_file(file).items()}


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return group_of(folder, "model") | group_of(folder, "optimizer")


def noise_of(seed: int, batch: int, position: int, shape: tuple[int, ...]) -> Tensor:
    """As it is documented: a generator seeded by the keys' blake2b."""
    keys = json.dumps([seed, batch, position, "validation"]).encode()
    seeded = torch.Generator().manual_seed(
        int.from_bytes(hashlib.blake2b(keys, digest_size=8).digest(), "big")
    )
    return torch.randn(shape, generator=seeded)


def plainly(spec: TrainSpec, options: RunOptions, saved: Path) -> dict[float, float]:
    """One clip at a time, with the weights of a checkpoint: x = (1 - s) x0 + s n predicts v = n - x0."""
    dataset = prepare(spec.data.dataset, cache_dir=options.cache_dir)
    plan = plan_of(spec, dataset, options.cache_dir).held_out
    assert plan is not None
    network = mm_models.build(spec.model, dtype=torch.float32)
    network.to_empty(device="cpu")
    network.init_buffers(torch.device("cpu"))  # type: ignore[operator]
    network.load_state_dict(group_of(saved, "model" if spec.ema is None else "average"))
    autoencoder = mm_models.build_autoencoder(spec.autoencoder, torch.device("cpu"), Locations())
    text_encoder = mm_models.build_text_encoder(spec.text_encoder, torch.device("cpu"), Locations())
    losses: dict[float, list[float]] = {0.95: [], 0.9: []}
    for number in range(3):
        planned = plan.batch(number)
        for position, (index, draw) in enumerate(zip(planned.indices, planned.draws, strict=True)):
            clip = load_clip(Asked(dataset.records[index], index, planned.shape, draw), spec.data)
            x0 = autoencoder.encode(to_model_range(clip.frames[None]))
            noise = noise_of(spec.seed, number, position, tuple(x0.shape[1:]))[None]
            for sigma, found in losses.items():
                noised = (1 - sigma) * x0 + sigma * noise
                with torch.no_grad():
                    velocity = network(
                        noised, torch.tensor([1000 * sigma]), text_encoder.encode([clip.caption])
                    )
                found.append(float((velocity - (noise - x0)).square().mean()))
    return {sigma: sum(found) / len(found) for sigma, found in losses.items()}


def agree(spec: TrainSpec, options: RunOptions, run_dir: Path) -> None:
    for line in validations(run_dir):
        found, saved = line["validation"], states.step_folder(run_dir / "checkpoints", line["step"])
        expected = plainly(spec, options, saved)
        # 0.3 is a noise level of the other expert.
        assert found["by_sigma"] == pytest.approx({f"{s:g}": loss for s, loss in expected.items()}, rel=1e-5)
        assert found["loss"] == pytest.approx(sum(expected.values()) / 2, rel=1e-5)
        assert found["clips"] == 12
        assert checkpoint.read_state(saved)["validation"] == found["loss"]


def test_it_is_what_a_plain_computation_says_of_the_checkpoint(
    spec: TrainSpec, options: RunOptions, whole: mm_train.TrainResult
) -> None:
    assert spec.diffusion.boundary == BOUNDARY
    assert [line["step"] for line in validations(whole.run_dir)] == [2, 3]
    agree(spec, options, whole.run_dir)


def test_where_an_average_is_kept_it_is_the_averages(spec: TrainSpec, options: RunOptions) -> None:
    spec = replace(spec, {"ema": EmaSpec(decay=0.5, start_step=0), "validation.every_steps": 9})
    result = mm_train.train(spec, options)
    assert len(validations(result.run_dir)) == 1
    agree(spec, options, result.run_dir)


def on_two(rank: int, spec: TrainSpec, options: RunOptions) -> None:
    mm_train.train(spec, options)


def test_two_ranks_and_a_resumed_run_find_the_same(
    spec: TrainSpec, options: RunOptions, whole: mm_train.TrainResult, run_ranks: RunRanks
) -> None:
    expected = numbers(whole.run_dir)
    with pytest.raises(StoppedEarly):
        mm_train.train(spec, attrs.evolve(options, stop_after=2))
    resumed = mm_train.train(spec, attrs.evolve(options, resume="latest"))
    assert numbers(resumed.run_dir) == expected

    # Master weights are float32 there too, so that only the order of sums differs.
    run_ranks(on_two, replace(spec, {"runtime.micro_batch_size": 1, "name": "on two ranks"}), options)
    (run_dir,) = (options.runs_dir / "on two ranks").iterdir()
    for line, one in zip(numbers(run_dir), expected, strict=True):
        assert line["step"] == one["step"]
        assert line["validation"]["clips"] == 12
        assert line["validation"]["loss"] == pytest.approx(one["validation"]["loss"], rel=1e-4)
        assert line["validation"]["by_sigma"] == pytest.approx(one["validation"]["by_sigma"], rel=1e-4)


@pytest.mark.parametrize("compute", [Dtype.FLOAT32, Dtype.BFLOAT16])
def test_it_changes_nothing_of_the_training(spec: TrainSpec, options: RunOptions, compute: Dtype) -> None:
    spec = replace(spec, {"precision.compute": compute, "validation.every_steps": 1})
    random_state = torch.get_rng_state()
    with_it = mm_train.train(spec, options)
    without = mm_train.train(replace(spec, "validation.every_steps", 1000), options)
    assert len(validations(with_it.run_dir)) == 3
    assert torch.equal(torch.get_rng_state(), random_state)
    losses = [
        [json.loads(line).get("loss") for line in (one.run_dir / "metrics.jsonl").read_text().splitlines()]
        for one in (with_it, without)
    ]
    assert [one for one in losses[0] if one] == [one for one in losses[1] if one]
    ours, theirs = tensors_of(with_it.checkpoint), tensors_of(without.checkpoint)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_no_held_out_clip_is_trained_on(
    mixed: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: set[int] = set()
    original: Callable[..., Any] = loop.gradients_of

    def watched(training: Any, batch: Any, batches: Any) -> Any:
        trained.update(batch.indices)
        return original(training, batch, batches)

    monkeypatch.setattr(loop, "gradients_of", watched)
    changes = {"validation": ValidationSpec(every_steps=9, holdout=0.3), "schedule.steps": 24}
    spec = replace(mixed, changes | {"data.cache": Cache.LATENTS})
    mm_train.train(spec, options)
    dataset = prepare(spec.data.dataset, cache_dir=options.cache_dir)
    held = np.concatenate([held_out(part, 0.3, spec.seed) for part in dataset.parts])
    assert trained == set(np.flatnonzero(~held).tolist())


def test_the_best_state_is_kept_and_found_again(spec: TrainSpec, options: RunOptions) -> None:
    # So high a rate that the loss grows after a while.
    changes = {"optim.lr": 0.5, "schedule.steps": 6, "schedule.warmup_steps": 4, "checkpoint.keep_last": 1}
    spec = replace(spec, {**changes, "validation.every_steps": 1, "checkpoint.every_steps": 1})
    with pytest.raises(StoppedEarly):
        mm_train.train(spec, attrs.evolve(options, stop_after=5))
    result = mm_train.train(spec, attrs.evolve(options, resume="latest"))
    losses = {line["step"]: line["validation"]["loss"] for line in validations(result.run_dir)}
    best = min(losses, key=losses.__getitem__)
    assert 1 <= best < 5
    kept = sorted(path.name for path in (result.run_dir / "checkpoints").iterdir())
    assert kept == [f"step-{best:08d}", "step-00000006"]
    found = result.best_checkpoint
    assert found == result.run_dir / "checkpoints" / f"step-{best:08d}"
    assert result.checkpoint.name == "step-00000006"
    assert found is not None and checkpoint.verify(found) == []


def test_fewer_held_out_clips_than_a_batch_are_refused_before_weights_are_loaded(
    spec: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mm_train.training.find_start", None)
    with pytest.raises(UserError, match=r"^spec\.validation\.holdout: 0\.05 of 32 clips holds out \d, fewer"):
        mm_train.train(replace(spec, "validation.holdout", 0.05), options)
