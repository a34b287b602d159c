"""Generates with Wan2.2 T2V-A14B, with the official sampler.

Say where the release lies: `--location Wan-AI/Wan2.2-T2V-A14B-Diffusers=DIR`.
"""

from mm_config import main
from mm_config.families import wan22
from mm_config.specs import Dtype, SamplesSpec

SPEC = wan22.T2V_A14B.infer(
    dtype=Dtype.BFLOAT16,
    samples=SamplesSpec(prompts=("A red fox runs through deep snow, the camera follows it.",)),
)

if __name__ == "__main__":
    main(SPEC)
