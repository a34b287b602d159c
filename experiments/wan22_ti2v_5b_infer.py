"""Generates with Wan2.2 TI2V-5B, with the official sampler: 121 frames of 704x1280 at 24 frames/s."""

from experiments import wan22_t2v
from mm_config import main
from mm_config.families import wan22

SPEC = wan22.TI2V_5B.infer(dtype=wan22_t2v.SPEC.dtype, samples=wan22_t2v.SPEC.samples)

if __name__ == "__main__":
    main(SPEC)
