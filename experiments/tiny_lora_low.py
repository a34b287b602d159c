"""Trains the adapter of the tiny low-noise expert for the same fifth colour."""

from experiments import tiny_lora_high, tiny_low
from mm_config import main, replace
from mm_config.specs import Expert, TrainedBy

SPEC = replace(
    tiny_lora_high.SPEC,
    {"expert": Expert.LOW_NOISE, "start_from": TrainedBy(spec=tiny_low.SPEC)},
)

if __name__ == "__main__":
    main(SPEC)
