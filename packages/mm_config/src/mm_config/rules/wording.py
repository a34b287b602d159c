"""How rules name what would be allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType


def either(numbers: Iterable[int]) -> str:
    """`81 or 85`, in rising order."""
    return " or ".join(str(number) for number in sorted(set(numbers)))


def nearest_multiples(number: int, step: int, offset: int = 0) -> tuple[int, ...]:
    """The positive numbers of the form step * k + offset just below and just above, k from 0 or 1 on."""
    below = (number - offset) // step * step + offset
    return tuple(candidate for candidate in (below, below + step) if candidate > 0)


def nearest_divisors(number: int, wanted: int) -> list[int]:
    """The divisors of `number` just below and just above `wanted`."""
    divisors = [candidate for candidate in range(1, number + 1) if number % candidate == 0]
    below = [divisor for divisor in divisors if divisor < wanted]
    above = [divisor for divisor in divisors if divisor > wanted]
    return below[-1:] + above[:1]


def one_of(value: str, allowed: Iterable[str], synonyms: Mapping[str, str] = MappingProxyType({})) -> str:
    """Why a word is refused: what is allowed and what was probably meant."""
    known = list(allowed)
    near = [synonyms[value]] if value in synonyms else difflib.get_close_matches(value, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"must be one of {', '.join(known)}, got {value!r}{hint}"
