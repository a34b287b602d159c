"""Trains Wan2.1 T2V-1.3B, as `wan21_t2v_14b` trains the large network."""

from experiments import wan21_t2v_14b
from mm_config import main
from mm_config.families import wan21

SPEC = wan21.T2V_1_3B.train(like=wan21_t2v_14b.SPEC)

if __name__ == "__main__":
    main(SPEC)
