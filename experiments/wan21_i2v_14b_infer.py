"""Generates with Wan2.1 I2V-14B at 480p, with the official sampler.

Give each prompt its first frame: `--spec.samples.images FILE`.
"""

from experiments import wan22_t2v
from mm_config import main
from mm_config.families import wan21

SPEC = wan21.I2V_14B_480P.infer(dtype=wan22_t2v.SPEC.dtype, samples=wan22_t2v.SPEC.samples)

if __name__ == "__main__":
    main(SPEC)
