"""Trains an adapter that teaches the tiny high-noise expert a fifth colour, beside the four that it knows."""

from experiments import tiny_high
from mm_config import main, replace
from mm_config.specs import LoraSpec, MixturePart, MixtureSpec, ShapesSpec, TrainedBy

TARGETS = (*LoraSpec().targets, "blocks.*.ffn.net.0.proj", "blocks.*.ffn.net.2")
NEW, OLD = ShapesSpec(colours=("purple",), clips_per_caption=4), ShapesSpec(clips_per_caption=1)
SPEC = replace(
    tiny_high.SPEC,
    {
        "start_from": TrainedBy(spec=tiny_high.SPEC),
        "lora": LoraSpec(rank=8, targets=TARGETS),
        "data.dataset": MixtureSpec(parts=(MixturePart(dataset=NEW), MixturePart(dataset=OLD))),
        "schedule.steps": 300,
        "runtime.build_missing": True,
    },
)

if __name__ == "__main__":
    main(SPEC)
