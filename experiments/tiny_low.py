"""Trains the tiny family's low-noise expert, starting from the high-noise expert's weights."""

from experiments import tiny_high
from mm_config import main, replace
from mm_config.specs import Expert, TrainedBy

SPEC = replace(
    tiny_high.SPEC,
    {
        "expert": Expert.LOW_NOISE,
        "start_from": TrainedBy(spec=tiny_high.SPEC),
        "schedule.steps": 1400,
        "runtime.build_missing": True,
    },
)

if __name__ == "__main__":
    main(SPEC)
