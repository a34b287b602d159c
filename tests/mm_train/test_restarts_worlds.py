"""Runs that go on with another number of ranks: the same data, noise and state, and losses to rounding."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.specs.train import TrainSpec
from mm_data import Batch
from mm_train import loop, losses
from mm_train.optim import named_moments
from mm_train.recording import Recorder
from mm_train.states import trained_state
from mm_train.work import Training
from tests.mm_train.relaunched import launched

Losses = Callable[[Path], list[float]]
HALF = 10
"""The step after which the first process is asked to stop."""


def whole(tensor: Tensor) -> Tensor:
    """A tensor as one process has it."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().clone()


def keep_state(training: Training, file: Path) -> None:
    """Writes all weights and moments, which the ranks put together by collectives of torch's own."""
    weights, moments = trained_state(training.network), named_moments(training.network, training.optimizer)
    found = {f"model/{name}": whole(tensor) for name, tensor in weights.items()}
    found |= {f"optimizer/{name}": whole(tensor) for name, tensor in moments.items()}
    if training.ranks.is_first:
        save_file(found, file)


def told(folder: Path, name: str) -> dict[str, Any]:
    """By step and place in the global batch: the clip, and what was drawn for it, on whatever rank."""
    found: dict[str, Any] = {}
    for file in folder.glob(f"{name}-*.jsonl"):
        for line in file.read_text().splitlines():
            key, *values = json.loads(line)
            found.setdefault(key, []).extend(values)
    return {key: sorted(map(str, values)) for key, values in found.items()}


def watched(folder: Path, name: str, *, stops: bool) -> Callable[[int], None]:
    """Has a rank write down what it trains on, and its state after half of the steps."""

    def before(rank: int) -> None:
        log = (folder / f"{name}-{rank}.jsonl").open("w", buffering=1)
        add, draw, gradients = Recorder.add, losses.draw, loop.gradients_of

        def draws(spec: TrainSpec, levels: object, step: int, positions: tuple[int, ...], *rest: Any) -> Any:
            drawn = draw(spec, levels, step, positions, *rest)  # type: ignore[arg-type]
            for place, noise, sigma in zip(positions, drawn.noise_BCTHW, drawn.sigma_B, strict=True):
                digest = hashlib.sha256(noise.numpy().tobytes()).hexdigest()
                print(json.dumps([f"{step} {place}", digest, float(sigma)]), file=log)
            return drawn

        def adds(recorder: Recorder, batch: Batch, *rest: Any) -> Any:
            for place, index in zip(batch.positions, batch.indices, strict=True):
                print(json.dumps([f"{batch.step} {place}", index]), file=log)
            if stops and batch.step + 1 == HALF:
                keep_state(recorder._training, folder / f"{name}.safetensors")
                if rank == 0:
                    signal.raise_signal(signal.SIGTERM)
            return add(recorder, batch, *rest)

        def computes(training: Training, batch: Batch, *rest: Any) -> Any:
            if not stops and batch.step == HALF:
                keep_state(training, folder / f"{name}.safetensors")
            return gradients(training, batch, *rest)

        Recorder.add = adds  # type: ignore[method-assign, assignment]
        losses.draw, loop.gradients_of = draws, computes  # type: ignore[assignment]

    return before


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (2, 1),
        pytest.param(1, 2, marks=pytest.mark.slow),
        pytest.param(2, 2, marks=pytest.mark.slow),
        pytest.param(1, 4, marks=pytest.mark.slow),
        pytest.param(2, 4, marks=pytest.mark.slow),
        pytest.param(4, 1, marks=pytest.mark.slow),
        pytest.param(4, 2, marks=pytest.mark.slow),
        pytest.param(4, 4, marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_with_another_number_of_ranks(
    first: int, second: int, small: TrainSpec, options: RunOptions, losses_of: Losses, tmp_path: Path
) -> None:
    spec = replace(small, {"name": f"from_{first}_to_{second}", "checkpoint.every_steps": 100})
    arguments = ("--runs-dir", options.runs_dir, "--resume", "auto")
    with launched(
        spec, tmp_path, *arguments, ranks=first, before=watched(tmp_path, "first", stops=True)
    ) as children:
        assert [child.end(300)[0] for child in children] == [143] * first
    with launched(
        spec, tmp_path, *arguments, ranks=second, before=watched(tmp_path, "second", stops=False)
    ) as children:
        ended = [child.end(300) for child in children]
        assert [status for status, _, _ in ended] == [0] * second, ended
    (folder,) = (options.runs_dir / str(spec.name)).iterdir()

    alone = replace(spec, "name", f"alone_{first}_{second}")
    with launched(
        alone, tmp_path, *arguments[:2], ranks=second, before=watched(tmp_path, "alone", stops=False)
    ) as children:
        assert [child.end(300)[0] for child in children] == [0] * second
    (expected,) = (options.runs_dir / str(alone.name)).iterdir()

    # Each sample of the twenty steps is there once, with its clip, its noise and its noise level.
    samples = told(tmp_path, "first") | told(tmp_path, "second")
    assert len(told(tmp_path, "first")) == len(told(tmp_path, "second")) == HALF * 8
    assert samples == told(tmp_path, "alone")

    before, after = (load_file(tmp_path / f"{name}.safetensors") for name in ("first", "second"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)

    found, wanted = losses_of(folder), losses_of(expected)
    print(first, second, max(abs(one / other - 1) for one, other in zip(found, wanted, strict=True)))
    if first == second:
        assert found == wanted
    else:
        assert found == pytest.approx(wanted, rel=1e-6)
