"""Random choices that follow from a text alone: the same on any machine and in any number of threads."""

from __future__ import annotations

from hashlib import blake2b


def uniform(draw: str, what: str) -> float:
    """A number from 0 to below 1.

    Args:
        draw: What all choices about a sample follow from: the seed, the sample and its epoch.
        what: The choice; each is independent of the others.
    """
    drawn = blake2b(f"{draw}/{what}".encode(), digest_size=8, person=b"mm_data.draw").digest()
    return (int.from_bytes(drawn, "little") >> 11) * 2.0**-53


def below(draw: str, what: str, count: int) -> int:
    """A whole number from 0 to below `count`."""
    return int(uniform(draw, what) * count)
