"""The number of the numerics: raised by a change of code that changes results under an unchanged spec."""

NUMERICS = 2
"""What each raise changed, newest last.

1: everything up to the first number; runs of that time did not record it.
2: timesteps of listed tables are as their sources have them, prompts are cleaned as the official code does,
   and generation in bfloat16 keeps in float32 what diffusers and the official code keep in it.
"""
