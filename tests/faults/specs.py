"""Two small experts and a generation with them, to be run with faults."""

from __future__ import annotations

from typing import Any

from experiments import tiny_high, tiny_low
from mm_config import replace
from mm_config.families.tiny import TINY
from mm_config.specs import InferRuntimeSpec, SamplesSpec, TrainedBy

NETWORK: dict[str, Any] = {
    "model.hidden_size": 32,
    "model.num_attention_heads": 2,
    "model.ffn_dim": 64,
    "model.num_layers": 1,
    "runtime.device": "cpu",
}
TRAINING: dict[str, Any] = {
    **NETWORK,
    "data.dataset.clips_per_caption": 1,
    "data.batch_size": 4,
    "data.num_frames": 5,
    "data.height": 32,
    "data.width": 32,
    "schedule.steps": 4,
    "schedule.warmup_steps": 1,
    "checkpoint.every_steps": 1,
    "checkpoint.keep_last": 2,
    "runtime.log_every": 1,
    "runtime.timeout_seconds": 8,
}
HIGH = replace(tiny_high.SPEC, {**TRAINING, "name": "high"})
LOW = replace(tiny_low.SPEC, {**TRAINING, "name": "low", "start_from": TrainedBy(spec=HIGH)})
VIDEO = replace(
    TINY.infer(
        high_noise=TrainedBy(spec=HIGH),
        low_noise=TrainedBy(spec=LOW),
        num_frames=5,
        height=32,
        width=32,
        fps=8,
        samples=SamplesSpec(prompts=("a red circle moving right",), seeds=(1,)),
        runtime=InferRuntimeSpec(batch_size=4),
    ),
    {**NETWORK, "name": "video", "sampler.steps": 2},
)
