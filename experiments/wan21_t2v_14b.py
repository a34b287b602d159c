"""Trains Wan2.1 T2V-14B on your clips, with MindSpeed-MM's settings."""

from experiments import wan22_high
from mm_config import main, replace
from mm_config.families import wan21

# MindSpeed-MM trains Wan2.1 on features of 81 frames.
SPEC = replace(wan21.T2V_14B.train(like=wan22_high.SPEC), "data.num_frames", 81)

if __name__ == "__main__":
    main(SPEC)
