"""Networks with given frames, adapters, Muon and averages, trained on the device as on the CPU."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch
from torch import nn

from experiments import tiny_high, tiny_i2v_high, tiny_lora_high
from mm_config.options.run_options import RunOptions
from mm_config.specs import Conditioning, EmaSpec, MuonSpec, TrainedBy
from mm_config.specs.data import Cache
from mm_config.specs.train import TrainSpec
from mm_train import train
from mm_train.offloading import Resting
from mm_train.results import TrainResult
from tests.mm_train.adapted import adapter_file
from tests.mm_train.conftest import SMALL
from tests.npu_standin.parity import assert_all_equal
from tests.npu_standin.trainings import STEPS, assert_equal_runs, metrics, spec_of, stored

ENCODING = {"data.cache": Cache.NONE}
"""Encoders run on the device in every step."""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    """One folder for all runs, so that clips are rendered once."""
    return RunOptions(runs_dir=tmp_path_factory.mktemp("runs"))


def both(
    name: str, options: RunOptions, changes: dict[str, Any], like: TrainSpec = tiny_high.SPEC
) -> tuple[TrainResult, TrainResult]:
    """One training on the device and on the CPU."""
    npu, cpu = (train(spec_of(f"{name}_{where}", where, changes, like), options) for where in ("npu", "cpu"))
    return npu, cpu


def test_tiny_i2v_of_given_first_frames(
    options: RunOptions, npu: torch.device, npu_calls: Counter[str]
) -> None:
    actual, expected = both("first", options, ENCODING, tiny_i2v_high.SPEC)
    assert npu_calls["npu_fusion_attention_grad"] == STEPS * 2 * SMALL["model.num_layers"]
    assert_equal_runs(actual.run_dir, expected.run_dir)


def test_one_whose_first_frame_is_clean_and_sometimes_left_out(
    options: RunOptions, npu: torch.device
) -> None:
    changes = {"model.conditioning": Conditioning.CLEAN_FIRST_FRAME, "data.frame_dropout": 0.5}
    actual, expected = both("clean", options, {**changes, **ENCODING})
    assert_equal_runs(actual.run_dir, expected.run_dir)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_the_adapters_of_tiny_lora(options: RunOptions, npu: torch.device, dropout: float) -> None:
    base, lora = spec_of("base", "cpu", {"schedule.steps": 2}), tiny_lora_high.SPEC.lora
    assert lora is not None
    changes = {
        "start_from": TrainedBy(spec=base),
        "runtime.build_missing": True,
        "lora": attrs.evolve(lora, dropout=dropout),
        # Without it, updates by gradients near zero, which adapters begin with, are as large as all others.
        "optim.eps": 1e-5,
    }
    actual, expected = both("adapters", options, changes)
    assert_equal_runs(actual.run_dir, expected.run_dir)
    assert_all_equal(adapter_file(actual), adapter_file(expected))


def test_muon(options: RunOptions, npu: torch.device) -> None:
    actual, expected = both("muon", options, {"optim": MuonSpec(lr=1e-3)})
    # It orthogonalises in bfloat16 and makes small singular values as large as others, errors with them.
    # Weights move by 1e-3.
    assert_equal_runs(actual.run_dir, expected.run_dir, tolerance=3e-5)


@pytest.mark.parametrize("offload", [False, True])
def test_an_average_of_the_weights(options: RunOptions, npu: torch.device, offload: bool) -> None:
    actual, expected = both("average", options, {"ema": EmaSpec(decay=0.5, offload=offload)})
    assert_equal_runs(actual.run_dir, expected.run_dir, "model", "average")


def test_encoders_that_rest_and_encode_ahead(options: RunOptions, npu: torch.device) -> None:
    plain = train(spec_of("plain", "npu", ENCODING, tiny_i2v_high.SPEC), options)
    ahead = {"runtime.encode_ahead": 3, "runtime.offload_encoders": True}
    rested = train(spec_of("rested", "npu", {**ENCODING, **ahead}, tiny_i2v_high.SPEC), options)
    assert [row["loss"] for row in metrics(rested.run_dir)] == [row["loss"] for row in metrics(plain.run_dir)]


def test_encoders_with_weights_lie_on_the_host_while_they_rest(npu: torch.device) -> None:
    network = nn.Linear(3, 2, device=npu).requires_grad_(False)
    x = torch.rand(2, 3).to(npu)
    expected = network(x).cpu()
    resting = Resting((SimpleNamespace(network=network),))
    for _ in range(2):
        assert network.weight.device.type == "cpu"
        with resting.awake():
            assert network.weight.device == npu and torch.equal(network(x).cpu(), expected)


def test_a_deterministic_training_repeats_every_bit(
    options: RunOptions, npu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch_npu, which reads them once, is imported long since.
    monkeypatch.setenv("HCCL_DETERMINISTIC", "true")
    monkeypatch.setenv("CLOSE_MATMUL_K_SHIFT", "1")
    changes = {**ENCODING, "runtime.deterministic": True}
    spec = spec_of("deterministic", "npu", changes, tiny_i2v_high.SPEC)
    states = [stored(train(spec, options).checkpoint)["model"] for _ in range(2)]
    assert all(torch.equal(states[0][name], one) for name, one in states[1].items())
