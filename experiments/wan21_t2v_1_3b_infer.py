"""Generates with Wan2.1 T2V-1.3B, with the official sampler."""

from experiments import wan22_t2v
from mm_config import main
from mm_config.families import wan21

SPEC = wan21.T2V_1_3B.infer(dtype=wan22_t2v.SPEC.dtype, samples=wan22_t2v.SPEC.samples)

if __name__ == "__main__":
    main(SPEC)
