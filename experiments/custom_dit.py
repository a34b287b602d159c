"""Trains a model of one's own, that of examples/custom_dit, on rendered clips of moving shapes."""

import attrs

from examples.custom_dit.spec import CustomDiTSpec
from mm_config import main
from mm_config.families.tiny import TINY
from mm_config.specs import (
    AdamWSpec,
    Cache,
    DataSpec,
    Decay,
    FsdpSpec,
    Recompute,
    RecomputeSpec,
    ScheduleSpec,
    ShapesSpec,
)

FAMILY = attrs.evolve(
    TINY,
    model=CustomDiTSpec(
        num_layers=3,
        num_attention_heads=4,
        head_dim=64,
        ffn_dim=512,
        in_channels=9,
        out_channels=9,
        patch_size=(1, 4, 4),
        text_dim=64,
    ),
    boundary=None,
    train_shift=5.0,
)

SPEC = FAMILY.train(
    data=DataSpec(
        dataset=ShapesSpec(),
        batch_size=32,
        num_frames=17,
        height=64,
        width=64,
        fps=8.0,
        cache=Cache.LATENTS,
    ),
    optim=AdamWSpec(lr=1e-3, betas=(0.9, 0.99)),
    schedule=ScheduleSpec(steps=600, warmup_steps=50, decay=Decay.COSINE),
    fsdp=FsdpSpec(wrap=("blocks.*",)),
    recompute=RecomputeSpec(mode=Recompute.FULL, modules=("blocks.*",)),
)

if __name__ == "__main__":
    main(SPEC)
