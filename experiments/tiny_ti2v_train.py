"""Trains one network for videos from text, or from a first frame that stays clean and a direction."""

from experiments import tiny_high, tiny_i2v_high
from mm_config import main, replace
from mm_config.families.tiny import TINY_TI2V
from mm_config.specs import MixturePart, MixtureSpec, ShapesCaption

DIRECTION = tiny_i2v_high.DATASET
FULL = replace(DIRECTION, "caption", ShapesCaption.FULL)
SPEC = TINY_TI2V.train(
    like=replace(
        tiny_high.SPEC,
        {
            "data.dataset": MixtureSpec(
                parts=(MixturePart(dataset=DIRECTION), MixturePart(dataset=FULL, weight=2.0))
            ),
            "data.frame_dropout": 0.5,
            "schedule.steps": 2500,
        },
    ),
)

if __name__ == "__main__":
    main(SPEC)
