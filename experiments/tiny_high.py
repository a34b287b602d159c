"""Trains the tiny family's high-noise expert on rendered clips of moving shapes."""

from mm_config import main
from mm_config.families.tiny import TINY
from mm_config.specs import AdamWSpec, Cache, DataSpec, Decay, Expert, ScheduleSpec, ShapesSpec

SPEC = TINY.train(
    Expert.HIGH_NOISE,
    data=DataSpec(
        dataset=ShapesSpec(),
        batch_size=32,
        num_frames=17,
        height=64,
        width=64,
        fps=8.0,
        cache=Cache.LATENTS,
    ),
    optim=AdamWSpec(lr=3e-3, betas=(0.9, 0.99)),
    schedule=ScheduleSpec(steps=450, warmup_steps=100, decay=Decay.COSINE),
)

if __name__ == "__main__":
    main(SPEC)
