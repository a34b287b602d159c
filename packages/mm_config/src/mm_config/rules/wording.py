"""How rules name what would be allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs

from mm_config.schema.diff import for_person
from mm_config.schema.errors import Problem
from mm_config.schema.suggestions import did_you_mean
from mm_config.schema.types import class_of

_SEARCHED = 10_000


def either(numbers: Iterable[int]) -> str:
    """`81 or 85`, in rising order."""
    return " or ".join(str(number) for number in sorted(set(numbers)))


def nearest_multiples(number: int, step: int, offset: int = 0) -> tuple[int, ...]:
    """The positive numbers of the form step * k + offset just below and just above, k from 0 or 1 on."""
    below = (number - offset) // step * step + offset
    return tuple(candidate for candidate in (below, below + step) if candidate > 0)


def nearest_divisors(number: int, wanted: int) -> list[int]:
    """The divisors of `number` just below and just above `wanted`, or 1 and itself where none is near."""
    first, last = min(wanted - 1, number), min(wanted + _SEARCHED, number)
    below = (one for one in range(first, max(first - _SEARCHED, 0), -1) if number % one == 0)
    above = (one for one in range(wanted + 1, last + 1) if number % one == 0)
    return [*([next(below, 1)] if wanted > 1 else []), *([next(above, number)] if wanted < number else [])]


def pixel_problems(name: str, pixels: int, cell: int, of: str = "") -> Iterator[Problem]:
    """Pixels that don't fill cells: `90 pixels are no multiple of 16; nearest: 80 or 96`."""
    if pixels % cell:
        legal = either(nearest_multiples(pixels, cell))
        yield Problem(name, f"{pixels} pixels are no multiple of {of}{cell}; nearest: {legal}")


def divisor_problems(name: str, number: int, whole: int, of: str, *, what: str = "does") -> Iterator[Problem]:
    """What is wrong where a number does not divide another: `3 does not divide 8 ranks; nearest: 2 or 4`."""
    if whole % number:
        legal = either(nearest_divisors(whole, number))
        yield Problem(name, f"{number} {what} not divide {of}; nearest: {legal}")


def repeated_problems(name: str, listed: Sequence[float | str]) -> Iterator[Problem]:
    """Numbers or words of a list that stand in it before."""
    for index, one in enumerate(listed):
        if one in listed[:index]:
            shown = repr(one) if isinstance(one, str) else one
            yield Problem(f"{name}.{index}", f"{shown} is listed twice")


def divisors(number: int) -> str:
    """`2, 3, 4, 6, 12`: what divides a small number, above 1; `1` where nothing does."""
    found = [candidate for candidate in range(2, min(number, _SEARCHED) + 1) if number % candidate == 0]
    return ", ".join(map(str, found)) or "1"


def counted(count: int, noun: str) -> str:
    """`1 clip`, `2 clips`: a number with its noun in singular or plural."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def ranks(count: int) -> str:
    """`1 rank`, `2 ranks`."""
    return counted(count, "rank")


def one_of(value: str, allowed: Iterable[str], synonyms: Mapping[str, str] = MappingProxyType({})) -> str:
    """Why a word is refused: what is allowed and what was probably meant."""
    known = list(allowed)
    hint = f"; did you mean {synonyms[value]}?" if value in synonyms else did_you_mean(value, known)
    return f"must be one of {', '.join(known)}, got {value!r}{hint}"


def idle_problems(spec: Any, names: Iterable[str], user: str) -> Iterator[Problem]:
    """Fields that say something where nobody reads them: they have to keep their defaults.

    Args:
        spec: The spec that holds the fields.
        names: The fields, which have defaults.
        user: What would read them: `sampling = logit_normal`.
    """
    for name in names:
        value, default = getattr(spec, name), attrs.fields_dict(class_of(spec))[name].default
        if value != default:
            yield Problem(
                name, f"is {for_person(value)}, which only {user} uses; leave it at {for_person(default)}"
            )
