"""What a training takes over from one before: weights, moments, or everything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.schema.errors import UserError
from mm_config.specs import Decay, SavedWeights, StartMode, TrainedBy, TrainSpec

FLAT = {"schedule.warmup_steps": 1, "schedule.decay": Decay.CONSTANT, "optim.lr": 1e-3}
Metrics = Callable[[Path], list[dict[str, float]]]


@pytest.fixture
def first(small: TrainSpec) -> TrainSpec:
    kept = {"checkpoint.every_steps": 2, "checkpoint.keep_last": 9, "optim.max_grad_norm": 1e9}
    return replace(small, {"schedule.steps": 4, "optim.betas": (0.9, 0.999), **FLAT, **kept})


@pytest.fixture
def before(first: TrainSpec, options: RunOptions) -> mm_train.TrainResult:
    return mm_train.train(first, options)


def tensors(checkpoint: Path, group: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted((checkpoint / group).glob("*.safetensors")):
        found |= load_file(file)
    return found


def require_equal(one: Path, other: Path) -> None:
    for group in ("model", "optimizer"):
        ours, theirs = tensors(one, group), tensors(other, group)
        assert ours.keys() == theirs.keys() and ours
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def digest_by_hand(checkpoint: Path) -> str:
    """sha256 of the RFC 8785 form of names, sizes and sha256, of the files themselves."""
    files = {}
    for file in sorted(checkpoint.rglob("*")):
        if file.is_file() and file.name != "manifest.json":
            content = file.read_bytes()
            name = file.relative_to(checkpoint).as_posix()
            files[name] = [len(content), hashlib.sha256(content).hexdigest()]
    text = json.dumps({"files": files, "kind": "checkpoint", "v": 1}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def test_an_exact_start_goes_on_as_if_nothing_had_been(
    first: TrainSpec, before: mm_train.TrainResult, options: RunOptions, metrics_of: Metrics
) -> None:
    whole = mm_train.train(replace(first, {"schedule.steps": 7}), options)
    longer = replace(
        first,
        {"start_from": TrainedBy(spec=first), "start_mode": StartMode.EXACT, "schedule.steps": 7},
    )
    with pytest.raises(StoppedEarly):
        mm_train.train(longer, attrs.evolve(options, stop_after=5))
    result = mm_train.train(longer, attrs.evolve(options, resume="latest"))
    require_equal(result.checkpoint, whole.checkpoint)
    kept = ("step", "loss", "lr", "grad_norm")
    lines = [
        [{name: line[name] for name in kept} for line in metrics_of(one.run_dir)] for one in (result, whole)
    ]
    assert lines[0] == lines[1][4:] and [line["step"] for line in lines[0]] == [5, 6, 7]
    assert result.run_dir != before.run_dir and before.steps == 4 and result.steps == 7
    made_from = json.loads((result.run_dir / "inputs.json").read_text())["inputs"]["spec.start_from"]
    assert Path(made_from["details"]["run_dir"]) == before.run_dir.absolute()


def test_a_restart_takes_the_moments_and_begins_the_schedule_anew(
    first: TrainSpec, before: mm_train.TrainResult, options: RunOptions, metrics_of: Metrics
) -> None:
    one = replace(
        first, {"start_from": TrainedBy(spec=first), "schedule.steps": 1, "optim.weight_decay": 0.1}
    )
    plain = mm_train.train(one, options)
    again = mm_train.train(replace(one, {"start_mode": StartMode.RESTART}), options)
    assert [line["step"] for line in metrics_of(again.run_dir)] == [1]
    assert metrics_of(again.run_dir)[0]["loss"] == metrics_of(plain.run_dir)[0]["loss"]
    weights, moments = tensors(before.checkpoint, "model"), tensors(before.checkpoint, "optimizer")
    after, fresh = tensors(again.checkpoint, "model"), tensors(plain.checkpoint, "optimizer")
    (beta1, beta2), lr, eps, decay = (0.9, 0.999), 1e-3, 1e-8, 0.1
    for name, weight in weights.items():
        # A fresh optimizer's first moments are (1 - beta) of the gradient and of its square.
        mean = beta1 * moments[f"{name}.exp_avg"] + fresh[f"{name}.exp_avg"]
        square = beta2 * moments[f"{name}.exp_avg_sq"] + fresh[f"{name}.exp_avg_sq"]
        root = (square / (1 - beta2**5)).sqrt() + eps
        expected = weight * (1 - lr * decay) - lr * mean / (1 - beta1**5) / root
        assert torch.allclose(after[name], expected, rtol=1e-5, atol=1e-7), name


def test_a_restarted_training_is_resumed_to_the_bit(
    first: TrainSpec, before: mm_train.TrainResult, options: RunOptions
) -> None:
    again = replace(first, {"start_from": TrainedBy(spec=first), "start_mode": StartMode.RESTART, "seed": 5})
    whole = mm_train.train(again, options)
    again = replace(again, "name", "interrupted")
    with pytest.raises(StoppedEarly):
        mm_train.train(again, attrs.evolve(options, stop_after=2))
    require_equal(mm_train.train(again, attrs.evolve(options, resume="latest")).checkpoint, whole.checkpoint)


@pytest.mark.parametrize("by_path", [False, True])
def test_any_checkpoint_can_be_gone_on_from_by_its_digest(
    by_path: bool, first: TrainSpec, before: mm_train.TrainResult, options: RunOptions
) -> None:
    middle = before.checkpoint.with_name("step-00000002")
    saved = SavedWeights(digest=digest_by_hand(middle), path=str(middle) if by_path else None)
    again = replace(first, {"start_from": saved, "start_mode": StartMode.EXACT})
    require_equal(mm_train.train(again, options).checkpoint, before.checkpoint)


def test_what_a_checkpoint_does_not_allow_is_refused_before_a_run_is_made(
    first: TrainSpec, before: mm_train.TrainResult, options: RunOptions
) -> None:
    runs = set(options.runs_dir.glob("*/*"))
    digest = digest_by_hand(before.checkpoint)
    exact = {"start_from": SavedWeights(digest=digest), "start_mode": StartMode.EXACT}
    for changes, path, said in (
        (exact, "spec.schedule.steps", "is 4, but the training that goes on has made 4"),
        ({**exact, "schedule.steps": 5, "seed": 9}, "spec.start_from.spec.seed", "was trained with 0"),
        ({"start_from": SavedWeights(digest=digest[:12])}, "spec.start_from.digest", "must be 64 hex digits"),
        ({"start_from": SavedWeights(digest="0" * 64)}, "spec.start_from", "has the checkpoint 000000000000"),
        (
            {"start_from": SavedWeights(digest="0" * 64, path=str(before.checkpoint))},
            "spec.start_from.digest",
            f"but {before.checkpoint} has {digest}",
        ),
        (
            {"start_from": SavedWeights(digest=digest, path=str(before.run_dir))},
            "spec.start_from.path",
            "is no checkpoint of a training",
        ),
    ):
        with pytest.raises(UserError) as refused:
            mm_train.train(replace(first, changes), options)
        (problem,) = refused.value.problems
        assert problem.path == path and said in problem.message
    assert set(options.runs_dir.glob("*/*")) == runs


def test_checkpoints_at_multiples_of_keep_every_stay(first: TrainSpec, options: RunOptions) -> None:
    keep = {"schedule.steps": 7, "checkpoint.every_steps": 1, "checkpoint.keep_last": 2}
    spec = replace(first, {**keep, "checkpoint.keep_every": 3})
    folder = mm_train.train(spec, options).checkpoint.parent
    assert sorted(int(path.name[5:]) for path in folder.iterdir()) == [3, 6, 7]


def test_what_was_made_of_a_checkpoint_on_the_way_is_not_made_of_the_end(
    first: TrainSpec, before: mm_train.TrainResult, options: RunOptions
) -> None:
    middle = before.checkpoint.with_name("step-00000002")
    saved = SavedWeights(digest=digest_by_hand(middle))
    run = mm_train.train(replace(first, {"start_from": saved, "schedule.steps": 1}), options).run_dir
    found = json.loads((run / "inputs.json").read_text())["inputs"]["spec.start_from"]
    assert found["digest"] == saved.digest and found["details"]["path"] == str(middle.absolute())
