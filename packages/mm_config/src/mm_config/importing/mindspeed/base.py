"""What holds where no file says anything: the values of experiments/wan22_high.py."""

from __future__ import annotations

from mm_config.specs.data import DataSpec
from mm_config.specs.datasets import ManifestSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.dtype import Dtype
from mm_config.specs.family import Family
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Weights
from mm_config.specs.optim import AdamWSpec, ScheduleSpec
from mm_config.specs.parallel import FsdpSpec, Recompute, RecomputeSpec
from mm_config.specs.train import CheckpointSpec, PrecisionSpec, TrainRuntimeSpec, TrainSpec

CLIPS = "clips"
"""Logical name of the data."""
FEATURES = "features"
"""Logical name of features that were computed before."""


def training(family: Family, expert: Expert) -> TrainSpec:
    """The training of an expert with our experiments' settings."""
    return family.train(
        expert,
        data=DataSpec(
            dataset=ManifestSpec(name=CLIPS), batch_size=8, num_frames=49, caption_dropout=0.0, workers=8
        ),
        optim=AdamWSpec(lr=1e-5, weight_decay=0.01),
        schedule=ScheduleSpec(steps=5000),
        precision=PrecisionSpec(compute=Dtype.BFLOAT16, reduce=Dtype.FLOAT32),
        seed=1234,
        fsdp=FsdpSpec(wrap=("blocks.*", "proj_out")),
        recompute=RecomputeSpec(mode=Recompute.FULL),
        checkpoint=CheckpointSpec(every_steps=1000),
        runtime=TrainRuntimeSpec(log_every=1),
    )


def generation(family: Family, weights: Weights | None = None) -> InferSpec:
    """Generation with our experiments' settings, without prompts; `weights` in place of the family's."""
    if weights is None:
        return family.infer(dtype=Dtype.BFLOAT16)
    return family.infer(high_noise=weights, dtype=Dtype.BFLOAT16)
