"""Pictures that look alike, by the difference hash: of each pixel, whether the next one is brighter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

MOST_BITS = 3
"""Bits of 64 in which hashes of one picture differ after it was encoded again or resized."""
_BITS = 16


def difference_hash(picture: Image.Image) -> int | None:
    """64 bits of 8 rows, from the upper left on; None of a picture that shows next to nothing.

    The dHash of Krawetz ("Kind of Like That", 2013), as the library imagehash has it.
    """
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.LANCZOS), np.int16)
    steps = np.diff(grey, axis=1)
    if np.abs(steps).max() < 4:
        return None
    return int.from_bytes(np.packbits(steps > 0).tobytes(), "big")


def alike(hashes: Mapping[int, int]) -> list[tuple[int, ...]]:
    """Groups of at least two keys whose hashes are connected by steps of at most `MOST_BITS` bits.

    Of four parts of a hash, one is equal in two that differ in three bits, so only those are compared.
    """
    keys_of: dict[int, list[int]] = defaultdict(list)
    for key, value in hashes.items():
        keys_of[value].append(key)
    near: dict[tuple[int, int], list[int]] = defaultdict(list)
    for value in keys_of:
        for part in range(MOST_BITS + 1):
            near[part, value >> part * _BITS & 0xFFFF].append(value)
    pairs = (
        (one, other)
        for values in near.values()
        for place, one in enumerate(values)
        for other in values[place + 1 :]
        if (one ^ other).bit_count() <= MOST_BITS
    )
    groups = (sorted(key for value in values for key in keys_of[value]) for values in _joined(keys_of, pairs))
    return sorted(tuple(group) for group in groups if len(group) > 1)


def _joined(values: Iterable[int], pairs: Iterable[tuple[int, int]]) -> Sequence[set[int]]:
    """Values in sets, those of each pair in one."""
    sets = {value: {value} for value in values}
    for one, other in pairs:
        small, large = sorted((sets[one], sets[other]), key=len)
        if small is not large:
            large |= small
            sets.update(dict.fromkeys(small, large))
    return list({id(found): found for found in sets.values()}.values())
