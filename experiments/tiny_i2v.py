"""Lets the shapes of held-out frames move in all four directions; trains missing experts first."""

from pathlib import Path

from experiments import tiny, tiny_i2v_high, tiny_i2v_low
from mm_config import main
from mm_config.families.tiny import TINY_I2V
from mm_config.specs import DIRECTIONS, SamplesSpec, ShapesScorerSpec, TrainedBy

FRAMES = tuple(sorted((Path(__file__).parent / "tiny_frames").glob("*.png")))
"""First frames of clips that nobody trains on, named after what each clip shows, such as red_circle_up."""

SPEC = TINY_I2V.infer(
    high_noise=TrainedBy(spec=tiny_i2v_high.SPEC),
    low_noise=TrainedBy(spec=tiny_i2v_low.SPEC),
    num_frames=17,
    height=64,
    width=64,
    fps=8,
    samples=SamplesSpec(
        prompts=tuple(f"moving {direction}" for _ in FRAMES for direction in DIRECTIONS),
        images=tuple(str(frame) for frame in FRAMES for _ in DIRECTIONS),
        wanted=tuple(
            "a {} {} moving {}".format(*frame.stem.split("_")[:2], direction)
            for frame in FRAMES
            for direction in DIRECTIONS
        ),
        seeds=(1001,),
        scorer=ShapesScorerSpec(),
    ),
    runtime=tiny.SPEC.runtime,
)

if __name__ == "__main__":
    main(SPEC)
