"""Trains Wan2.1 FLF2V-14B, which is given the first and the last frame, at 720p."""

from experiments import wan21_i2v_14b
from mm_config import main, replace
from mm_config.families import wan21

# The released network is made for this size.
SPEC = replace(wan21.FLF2V_14B.train(like=wan21_i2v_14b.SPEC), {"data.height": 720, "data.width": 1280})

if __name__ == "__main__":
    main(SPEC)
