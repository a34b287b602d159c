"""Trains Wan2.1 I2V-14B at 480p, as `wan21_t2v_14b` trains the network without images."""

from experiments import wan21_t2v_14b
from mm_config import main
from mm_config.families import wan21

SPEC = wan21.I2V_14B_480P.train(like=wan21_t2v_14b.SPEC)

if __name__ == "__main__":
    main(SPEC)
