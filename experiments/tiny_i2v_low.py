"""Trains the low-noise expert of videos from a given frame, starting from the high-noise expert's weights."""

from experiments import tiny_i2v_high
from mm_config import main, replace
from mm_config.specs import Expert, TrainedBy

SPEC = replace(
    tiny_i2v_high.SPEC,
    {
        "expert": Expert.LOW_NOISE,
        "start_from": TrainedBy(spec=tiny_i2v_high.SPEC),
        "schedule.steps": 1500,
        "runtime.build_missing": True,
    },
)

if __name__ == "__main__":
    main(SPEC)
