"""Generates shapes of a fifth colour with adapters of both experts; trains what is missing first."""

from experiments import tiny, tiny_lora_high, tiny_lora_low
from mm_config import main, replace
from mm_config.specs import AppliedLoraSpec, TrainedBy

SPEC = replace(
    tiny.SPEC,
    {
        "loras": (
            AppliedLoraSpec(
                high_noise=TrainedBy(spec=tiny_lora_high.SPEC),
                low_noise=TrainedBy(spec=tiny_lora_low.SPEC),
            ),
        ),
        "samples.prompts": tiny_lora_high.NEW.captions,
        "samples.seeds": tuple(range(1001, 1009)),
    },
)

if __name__ == "__main__":
    main(SPEC)
