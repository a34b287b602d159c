"""Two ranks under FSDP2, over HCCL's name and gloo's wires."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.npu_standin.trainings import assert_equal_runs, metrics, stored
from tests.npu_standin.two_ranks import STEPS

SCRIPT = Path(__file__).with_name("two_ranks.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks left what they did."""
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run([*TORCHRUN, str(SCRIPT), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def run_of(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"runs/{name}/*/")
    return found


def found_by(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_losses_gradients_and_weights_equal_those_of_two_ranks_on_the_cpu(folder: Path) -> None:
    assert_equal_runs(run_of(folder, "npu"), run_of(folder, "cpu"), steps=STEPS)


@pytest.mark.parametrize("way", ["shared", "ring"])
def test_two_ranks_that_share_tokens_equal_those_on_the_cpu(way: str, folder: Path) -> None:
    assert_equal_runs(run_of(folder, f"{way}-npu"), run_of(folder, f"{way}-cpu"), steps=STEPS)
    losses = [[row["loss"] for row in metrics(run_of(folder, name))] for name in (f"{way}-cpu", "cpu")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_weights_that_lie_on_the_host_are_trained_as_those_on_the_device(folder: Path) -> None:
    assert_equal_runs(run_of(folder, "on host"), run_of(folder, "cpu"), steps=STEPS)


def test_a_resumed_training_repeats_every_bit(folder: Path) -> None:
    whole, resumed = run_of(folder, "npu"), run_of(folder, "resumed")
    assert [row["loss"] for row in metrics(resumed)] == [row["loss"] for row in metrics(whole)]
    ours, theirs = (stored(run / "checkpoints" / f"step-{STEPS:08d}") for run in (resumed, whole))
    for group in theirs:
        assert all(torch.equal(ours[group][name], one) for name, one in theirs[group].items())


def test_both_ranks_restore_the_same_weights_into_their_shards(folder: Path) -> None:
    ranks = found_by(folder)
    assert [rank["devices"] for rank in ranks] == [["npu:0"], ["npu:1"]]
    assert all(rank["sharded"] and rank["backend"] == "cpu:gloo,npu:hccl" for rank in ranks)
    assert ranks[0]["restored"] == ranks[1]["restored"]


def test_torchs_distributed_checkpoint_saves_and_loads_every_bit(folder: Path) -> None:
    ranks = found_by(folder)
    assert ranks[0]["empty"] != ranks[0]["restored"]
    assert {rank["read"] for rank in ranks} == {ranks[0]["restored"]}


def test_every_rank_used_the_fused_operators(folder: Path) -> None:
    for rank in found_by(folder):
        assert {"npu_fusion_attention_grad", "npu_rms_norm_backward", "npu_rotary_mul_backward"} <= set(
            rank["calls"]
        )
