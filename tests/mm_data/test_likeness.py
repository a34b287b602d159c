"""The difference hash is that of imagehash, and groups are those of comparing each with each."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mm_data.looking.likeness import MOST_BITS, alike, difference_hash


def test_the_hash_is_that_of_imagehash() -> None:
    """Numbers of imagehash 4.3.2's `dhash` with Pillow 13.0.0."""
    y, x = np.mgrid[:90, :160]
    slopes = np.stack([(x * 7 + y * 3) % 256, (x * y) % 256, 255 - x], -1).astype(np.uint8)
    board = np.stack([255 * ((x // 20 + y // 15) % 2)] * 3, -1).astype(np.uint8)
    assert difference_hash(Image.fromarray(slopes)) == 0xAAAA42555555A1AA
    assert difference_hash(Image.fromarray(board)) == 0xA55A5AA55AA5A55A


def test_a_picture_that_shows_nothing_looks_like_nothing() -> None:
    assert difference_hash(Image.new("RGB", (64, 64), "black")) is None


NEAR = st.builds(
    lambda base, bits: base ^ sum(1 << bit for bit in bits),
    st.sampled_from([0, 0xA55A5AA55AA5A55A, 0x0F0F0F0F00FF00FF]),
    st.sets(st.integers(0, 63), max_size=8),
)


@settings(max_examples=40)
@given(st.dictionaries(st.integers(0, 500), NEAR, max_size=40))
def test_groups_are_those_of_comparing_each_with_each(hashes: dict[int, int]) -> None:
    groups = {key: {key} for key in hashes}
    for one, other in combinations(hashes, 2):
        if bin(hashes[one] ^ hashes[other]).count("1") <= MOST_BITS:
            joined = groups[one] | groups[other]
            groups.update(dict.fromkeys(joined, joined))
    expected = {tuple(sorted(group)) for group in groups.values() if len(group) > 1}
    assert set(alike(hashes)) == expected
