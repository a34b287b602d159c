"""Trainings whose ranks share the tokens of each clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

import mm_models
import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.specs.diffusion import SamplerSpec
from mm_config.specs.monitoring import TrainingSamplesSpec, ValidationSpec
from mm_config.specs.parallel import CompileBackend, CompileSpec, Recompute
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import RandomWeights
from mm_data import read_mp4
from mm_models.ops.choosing import choose
from mm_models.parallel import over_ranks
from mm_models.ranks import Ranks
from mm_train.layout import layout_of
from mm_train.parallelize import materialize, parallelize
from tests.forked_ranks import RunRanks

CPU = torch.device("cpu")
ULYSSES, RING = {"parallel.ulysses": 2}, {"parallel.ring": 2}
AOT_EAGER = CompileSpec(enabled=True, backend=CompileBackend.AOT_EAGER)


def gradients(spec: TrainSpec, ranks: Ranks, sizes: tuple[int, ...]) -> dict[str, Tensor]:
    """Whole gradients after one pass of each size; the first one once more, after all others."""
    layout = layout_of(spec, ranks, CPU)
    network = mm_models.build(spec.model, ops=over_ranks(choose(CPU), layout.context))
    parallelize(network, spec, layout, CPU)
    materialize(network, CPU)
    mm_models.initialize(network, seed=1)
    with torch.no_grad():
        for name, one in network.named_parameters():
            if name.startswith("proj_out"):
                one.fill_(1 / 7)
    for size in sizes:
        generator = torch.Generator().manual_seed(size)
        latents = torch.randn(1, spec.model.in_channels, 1, 2 * size, 6, generator=generator)
        text = torch.randn(1, 5, spec.model.text_dim, generator=generator)
        network(latents, torch.tensor([900.0]), text).square().mean().backward()
    return {name: _whole(one.grad) for name, one in network.named_parameters() if one.grad is not None}


def _whole(gradient: Tensor) -> Tensor:
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


def _equal(rank: int, spec: TrainSpec, changes: list[dict[str, Any]], sizes: tuple[int, ...]) -> None:
    expected = gradients(spec, Ranks(0, 1, grouped=False), sizes)
    for change in changes:
        torch._dynamo.reset()
        found = gradients(replace(spec, change), Ranks(rank, 2, grouped=True), sizes)
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            error = (gradient - expected[name]).norm() / expected[name].norm()
            assert error < 1e-5, f"{change}: {name}: {error:.1e}"


AGAIN = (Recompute.FULL, Recompute.SELECTIVE)
MODES = [{"recompute.mode": mode, **degrees} for mode in AGAIN for degrees in (ULYSSES, RING)]
COMPILED = [
    {**ULYSSES, "recompute.mode": Recompute.SELECTIVE, "compile": AOT_EAGER},
    {**RING, "recompute.mode": Recompute.FULL, "compile": AOT_EAGER},
]


@pytest.mark.parametrize("modes", [MODES, pytest.param(COMPILED, marks=pytest.mark.slow)], ids=len)
def test_gradients_in_every_mode_are_those_of_one_process(
    run_ranks: RunRanks, small: TrainSpec, modes: list[dict[str, Any]]
) -> None:
    """Three tokens on two ranks, then six."""
    run_ranks(_equal, small, modes, (1, 2))


def _counted(rank: int, spec: TrainSpec) -> None:
    send, sends = dist.batch_isend_irecv, list[int]()

    def counted(ops: list[dist.P2POp]) -> list[dist.Work]:
        sends.append(len(ops) // 2)
        return send(ops)

    dist.batch_isend_irecv = counted
    found: dict[Recompute, int] = {}
    for mode in Recompute:
        sends.clear()
        gradients(replace(spec, {**RING, "recompute.mode": mode}), Ranks(rank, 2, grouped=True), (2,))
        found[mode] = sum(sends) // spec.model.num_layers
    assert found == {Recompute.NONE: 3, Recompute.FULL: 4, Recompute.SELECTIVE: 3}


def test_selective_recomputation_keeps_a_rings_output_and_sends_nothing_again(
    run_ranks: RunRanks, small: TrainSpec
) -> None:
    """Between two ranks: keys and values, once more in the backward pass, and their gradients."""
    run_ranks(_counted, small)


def _trained(rank: int, spec: TrainSpec, options: RunOptions) -> None:
    mm_train.train(spec, options)


def test_a_training_has_the_losses_validation_and_videos_of_one_process(
    run_ranks: RunRanks,
    small: TrainSpec,
    options: RunOptions,
    metrics_of: Callable[[Path], list[dict[str, Any]]],
) -> None:
    """80 tokens on three ranks."""
    samples = TrainingSamplesSpec(
        prompts=("a red circle moving up",),
        sampler=SamplerSpec(steps=2, guidance_high_noise=2.0),
        every_steps=3,
        other_expert=RandomWeights(seed=5),
    )
    changes = {
        "schedule.steps": 3,
        "schedule.warmup_steps": 1,
        "data.batch_size": 4,
        "runtime.micro_batch_size": 2,
        "runtime.deterministic": True,
        "validation": ValidationSpec(every_steps=3, batches=1, holdout=0.2, sigmas=(0.95,)),
        "samples": samples,
    }
    spec = replace(small, changes)
    alone = mm_train.train(spec, options).run_dir
    run_ranks(_trained, replace(spec, {"parallel.ring": 3, "name": "shared"}), options, ranks=3)
    (folder,) = (options.runs_dir / "shared").iterdir()
    found, expected = metrics_of(folder), metrics_of(alone)
    for key in ("loss", "grad_norm"):
        rows, wanted = ([row[key] for row in rows if key in row] for rows in (found, expected))
        assert len(rows) == 3 and rows == pytest.approx(wanted, rel=1e-5)
    losses = [row["validation"]["loss"] for row in (*found, *expected) if "validation" in row]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and len(losses) == 2
    videos = [next(run.glob("samples/step-00000003/*.mp4")) for run in (folder, alone)]
    ours, theirs = (read_mp4(video).float() for video in videos)
    assert (ours - theirs).abs().mean() < 0.5
