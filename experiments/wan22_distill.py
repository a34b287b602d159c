"""Generates with the four-step Wan2.2 T2V-A14B."""

from experiments import wan22_t2v
from mm_config import main
from mm_config.families import wan22

SPEC = wan22.T2V_A14B_DISTILLED.infer(dtype=wan22_t2v.SPEC.dtype, samples=wan22_t2v.SPEC.samples)

if __name__ == "__main__":
    main(SPEC)
