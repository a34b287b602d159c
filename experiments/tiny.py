"""Generates moving shapes from prompts; trains both experts first where they are missing."""

from experiments import tiny_high, tiny_low
from mm_config import main
from mm_config.families.tiny import TINY
from mm_config.specs import InferRuntimeSpec, SamplesSpec, ShapesScorerSpec, ShapesSpec, TrainedBy

SPEC = TINY.infer(
    high_noise=TrainedBy(spec=tiny_high.SPEC),
    low_noise=TrainedBy(spec=tiny_low.SPEC),
    num_frames=17,
    height=64,
    width=64,
    fps=8,
    samples=SamplesSpec(prompts=ShapesSpec().captions, seeds=(1001, 1002), scorer=ShapesScorerSpec()),
    runtime=InferRuntimeSpec(batch_size=64, build_missing=True),
)

if __name__ == "__main__":
    main(SPEC)
