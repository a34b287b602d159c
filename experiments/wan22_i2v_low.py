"""Trains Wan2.2 I2V-A14B's low-noise expert, as `wan22_i2v_high` trains the other."""

from experiments import wan22_i2v_high
from mm_config import main
from mm_config.families import wan22
from mm_config.specs import Expert

SPEC = wan22.I2V_A14B.train(Expert.LOW_NOISE, like=wan22_i2v_high.SPEC)

if __name__ == "__main__":
    main(SPEC)
