"""Which of several takers gets the next one, so that each has its share at all times, in O(1) memory.

A taker with weight `w` of `W` in all has `floor(n * w / W)` of the first `n`, as the pixels of a straight
line rise (Bresenham, 1965). The others share what is left in the same way. So any `W` that follow each other
hold exactly `w` of it, wherever they start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


def shared(number: int, weights: Sequence[int]) -> tuple[int, int]:
    """Who gets `number`, counted from 0, and how many it had before.

    Args:
        weights: One for each taker, not all 0.
    """
    left = sum(weights)
    for taker, weight in enumerate(weights):
        had = number * weight // left
        if (number + 1) * weight // left > had:
            return taker, had
        number -= had
        left -= weight
    raise AssertionError("the last one takes all that is left")


def whole_weights(weights: Sequence[Fraction]) -> tuple[int, ...]:
    """The smallest whole numbers in the same proportions."""
    common = math.lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * common) for weight in weights]
    divisor = math.gcd(*whole)
    return tuple(weight // divisor for weight in whole)
