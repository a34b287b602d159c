"""Lets the shapes of held-out frames move, by a network that keeps the first frame clean."""

from experiments import tiny_i2v, tiny_ti2v_train
from mm_config import main
from mm_config.families.tiny import TINY_TI2V
from mm_config.specs import TrainedBy

SPEC = TINY_TI2V.infer(
    high_noise=TrainedBy(spec=tiny_ti2v_train.SPEC),
    num_frames=17,
    height=64,
    width=64,
    fps=8,
    samples=tiny_i2v.SPEC.samples,
    runtime=tiny_i2v.SPEC.runtime,
)

if __name__ == "__main__":
    main(SPEC)
