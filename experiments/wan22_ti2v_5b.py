"""Trains Wan2.2 TI2V-5B, one network for text and first frames, as `wan22_high` trains an expert of A14B."""

from experiments import wan22_high
from mm_config import main, replace
from mm_config.families import wan22

# MindSpeed-MM trains on 49 frames of 480x832, in the manifest's order (order=SEQUENTIAL); the official
# videos are 121 frames of 704x1280.
SPEC = replace(wan22.TI2V_5B.train(like=wan22_high.SPEC), "data.fps", 24.0)

if __name__ == "__main__":
    main(SPEC)
