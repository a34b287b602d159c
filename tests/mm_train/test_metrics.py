"""What a line of metrics.jsonl says of its step."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import mm_models
import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.reproducing.metrics import read_metrics
from mm_config.specs.data import Cache
from mm_config.specs.parallel import Recompute
from mm_config.specs.train import TrainSpec
from mm_train import rates
from mm_train.metrics import flat
from mm_train.timing import STEP_PARTS

Metrics = Callable[[Path], list[dict[str, Any]]]
H200_FLOAT32 = 67e12


def counted(spec: TrainSpec) -> tuple[int, int]:
    """Operations of one sample's forward pass, and those in the blocks, counted as torch does them."""
    network = mm_models.build(spec.model, device="meta", dtype=torch.float32)
    shape = spec.autoencoder.latent_shape(spec.data.num_frames, spec.data.height, spec.data.width)
    latents = torch.empty(1, spec.model.in_channels, *shape, device="meta")
    text = torch.empty(1, spec.text_encoder.max_tokens, spec.model.text_dim, device="meta")
    timestep = torch.empty(1, device="meta")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        network(latents, timestep, text)
    by_module = counter.get_flop_counts()
    blocks = [counts for name, counts in by_module.items() if name.rpartition(".")[0].endswith("blocks")]
    assert len(blocks) == spec.model.num_layers
    return counter.get_total_flops(), sum(sum(counts.values()) for counts in blocks)


def test_a_line_tells_where_the_time_of_its_step_went_and_what_it_came_to(
    small: TrainSpec,
    options: RunOptions,
    metrics_of: Metrics,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rates, "device_names", lambda device: ("NVIDIA H200",))
    changes = {"schedule.steps": 4, "runtime.micro_batch_size": 4, "checkpoint.every_steps": 2}
    spec = replace(small, {**changes, "data.cache": Cache.NONE, "recompute.mode": Recompute.FULL})
    result = mm_train.train(spec, options)
    lines = metrics_of(result.run_dir)
    forward, blocks = counted(spec)
    assert blocks > 0.9 * forward
    frames, height, width = spec.autoencoder.latent_shape(17, 64, 64)
    for line in lines:
        seconds, took = line["seconds"], line["step_seconds"]
        assert sum(seconds[part] for part in STEP_PARTS) == pytest.approx(took, abs=1e-5)
        assert min(seconds[part] for part in ("encode", "forward", "backward", "optimizer")) > 0
        assert seconds["data"] == pytest.approx(line["data_wait_seconds"], abs=1e-3)
        assert line["samples_per_second"] == pytest.approx(8 / took)
        assert line["tokens_per_second"] == pytest.approx(8 * frames * height * width / 4 / took)
        assert line["tflops"] == pytest.approx(3 * 8 * forward / took / 1e12, rel=1e-3)
        assert line["mfu"] == pytest.approx(3 * 8 * forward / took / H200_FLOAT32, rel=1e-3)
        # A plan counts embeddings as blocks, here 2 % of all.
        assert line["hfu"] == pytest.approx(8 * (3 * forward + blocks) / took / H200_FLOAT32, rel=0.03)
        assert line["peak_gib"] > 0
    time, rates_told, _ = capsys.readouterr().out.splitlines()[-3:]
    took = sum(line["step_seconds"] for line in lines)
    assert re.fullmatch(r"4 steps in \d+\.\d s: .*encode \d+%, forward \d+%, backward \d+%, .*", time)
    assert "checkpoint" in time
    assert rates_told.startswith(f"{32 / took:.3g} samples/s, ")
    assert f"MFU {3 * 32 * forward / took / H200_FLOAT32:.1%}" in rates_told
    assert rates_told.endswith(str(result.run_dir / "metrics.jsonl"))
    # What is done between two steps stands in the line of the second.
    assert [line["seconds"].get("checkpoint", 0) > 0 for line in lines] == [False, False, True, False]


def test_no_share_of_a_peak_is_told_where_the_peak_is_not_known(
    small: TrainSpec, options: RunOptions, metrics_of: Metrics
) -> None:
    (line,) = metrics_of(mm_train.train(replace(small, SHORT), options).run_dir)
    assert "mfu" not in line
    assert line["tflops"] > 0


SHORT = {"schedule.steps": 1, "schedule.warmup_steps": 0}


def test_a_later_line_adds_to_its_step(tmp_path: Path) -> None:
    text = '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 2, "validation": {"loss": 1.7}}\n'
    (tmp_path / "metrics.jsonl").write_text(text)
    read = read_metrics(tmp_path)
    assert read == {1: {"step": 1, "loss": 2.0}, 2: {"step": 2, "loss": 1.5, "validation": {"loss": 1.7}}}
    assert flat(read[2]) == {"step": 2, "loss": 1.5, "validation/loss": 1.7}
