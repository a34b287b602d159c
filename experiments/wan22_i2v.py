"""Generates with Wan2.2 I2V-A14B from a first frame, with the official sampler.

Give each prompt its first frame: `--spec.samples.images FILE`.
"""

from experiments import wan22_t2v
from mm_config import main
from mm_config.families import wan22

SPEC = wan22.I2V_A14B.infer(dtype=wan22_t2v.SPEC.dtype, samples=wan22_t2v.SPEC.samples)

if __name__ == "__main__":
    main(SPEC)
