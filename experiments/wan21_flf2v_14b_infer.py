"""Generates with Wan2.1 FLF2V-14B from a first and a last frame, with the official sampler.

Give each prompt its frames: `--spec.samples.images FILE --spec.samples.last-images FILE`.
"""

from experiments import wan22_t2v
from mm_config import main
from mm_config.families import wan21

SPEC = wan21.FLF2V_14B.infer(dtype=wan22_t2v.SPEC.dtype, samples=wan22_t2v.SPEC.samples)

if __name__ == "__main__":
    main(SPEC)
