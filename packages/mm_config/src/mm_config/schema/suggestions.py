"""What a misspelt word was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

_LIKENESS = 0.7
_ABOUT_AS_NEAR = 0.05


def nearest(word: object, known: Iterable[str]) -> list[str]:
    """The known words about as near as the nearest one, that first; none where none is near."""
    if not isinstance(word, str):
        return []
    near = difflib.get_close_matches(word, list(known), cutoff=_LIKENESS)
    least = _likeness(word, near[0]) - _ABOUT_AS_NEAR if near else 0
    return [one for one in near if _likeness(word, one) >= least]


def _likeness(word: str, known: str) -> float:
    return difflib.SequenceMatcher(None, known, word).ratio()


def did_you_mean(word: object, known: Iterable[str], said: Callable[[str], str] = str) -> str:
    """`; did you mean A or B?` with the nearest words, or nothing where none is near.

    Args:
        word: What was given.
        known: The words that are known.
        said: What is said of a known word.
    """
    near = dict.fromkeys(map(said, nearest(word, known)))
    return f"; did you mean {' or '.join(near)}?" if near else ""
