"""Whole trainings with parameters spread in some way: as one process has them, and resumed to the bit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.specs.lora import LoraSpec
from mm_config.specs.optim import EmaSpec
from mm_config.specs.train import TrainSpec
from mm_models.checkpoint_differences import tensor_digests
from tests.forked_ranks import RunRanks

Losses = Callable[[Path], list[float]]
FEW = {
    "schedule.steps": 4,
    "schedule.warmup_steps": 1,
    "runtime.micro_batch_size": 1,
    "ema": EmaSpec(decay=0.5),
}
NEARER = {"fsdp.shard_size": 2, "fsdp.blocks_per_unit": 2, "fsdp.forward_prefetch": 1, "fsdp.reshard_size": 1}
ADAPTED = {"lora": LoraSpec(rank=3), "fsdp.wrap": ("blocks.0",), "fsdp.ignore": ("blocks.1", "proj_out")}
ON_HOST = {"fsdp.offload": True, "fsdp.ignore": ("condition_embedder",), "fsdp.backward_prefetch": 2}
FROZEN = {
    "frozen": ("condition_embedder.*", "blocks.0.*"),
    "fsdp.ignore": ("blocks.*.ffn", "condition_embedder"),
}
WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "nearer": (4, NEARER),
    "adapted": (2, {**ADAPTED, "fsdp.offload": True, "checkpoint.asynchronous": True}),
    "on host": (2, ON_HOST),
    "frozen": (2, {**FROZEN, "fsdp.wrap": ("blocks.*.attn1",)}),
}
SLOW = ("on host", "frozen")


def digests_of(checkpoint: Path) -> dict[str, dict[str, str]]:
    """Of each tensor's part by the file that holds it."""
    files = sorted(checkpoint.rglob("*.safetensors"))
    return {str(file.relative_to(checkpoint)): tensor_digests(file) for file in files}


def _straight_and_resumed(
    rank: int, spec: TrainSpec, options: RunOptions, alone: list[float], losses: Losses
) -> None:
    whole = mm_train.train(spec, options)
    cut = replace(spec, "name", f"{spec.name} resumed")
    with suppress(StoppedEarly):
        mm_train.train(cut, attrs.evolve(options, stop_after=2))
    resumed = mm_train.train(cut, attrs.evolve(options, resume="latest"))
    if rank == 0:
        assert losses(whole.run_dir) == pytest.approx(alone, rel=1e-5)
        assert losses(resumed.run_dir) == losses(whole.run_dir)
        found = digests_of(whole.checkpoint)
        assert {Path(name).parts[0] for name in found} == {"model", "optimizer", "average"}
        assert digests_of(resumed.checkpoint) == found


@pytest.mark.parametrize("way", [pytest.param(way, marks=[pytest.mark.slow] * (way in SLOW)) for way in WAYS])
def test_a_training_is_that_of_one_process_and_resumed_to_the_bit(
    way: str, small: TrainSpec, options: RunOptions, run_ranks: RunRanks, losses_of: Losses
) -> None:
    ranks, changes = WAYS[way]
    spec = replace(small, {**FEW, **changes, "name": f"{way} spread"})
    alone = replace(spec, {"fsdp": small.fsdp, "name": f"{way} alone"})
    losses = losses_of(mm_train.train(alone, options).run_dir)
    run_ranks(_straight_and_resumed, spec, options, losses, losses_of, ranks=ranks)
