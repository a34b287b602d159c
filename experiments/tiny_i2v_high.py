"""Trains the high-noise expert that lets a given shape move; captions say the direction alone."""

from experiments import tiny_high
from mm_config import main, replace
from mm_config.families.tiny import TINY_I2V
from mm_config.specs import Expert, ShapesCaption, ShapesSpec, ShapesStart

DATASET = ShapesSpec(start=ShapesStart.MIDDLE, caption=ShapesCaption.DIRECTION)
SPEC = TINY_I2V.train(
    Expert.HIGH_NOISE,
    like=replace(tiny_high.SPEC, {"data.dataset": DATASET, "schedule.steps": 300}),
)

if __name__ == "__main__":
    main(SPEC)
