"""Plain data keeps its order, shares hold in every window, and blocks are permutations."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_data import make_plan
from mm_data.plan.order import in_blocks, index_of
from mm_data.plan.sharing import shared, whole_weights
from tests.mm_data.streams import plain_dataset


@given(num_records=st.integers(1, 50), batch_size=st.integers(1, 9), step=st.integers(0, 10**9))
@settings(max_examples=40, deadline=None)
def test_plain_data_keeps_its_order(data_spec, num_records, batch_size, step):
    plan = make_plan(data_spec(batch_size=batch_size), plain_dataset(num_records), 5)
    planned = plan.batch(step)
    numbers = [step * batch_size + position for position in range(batch_size)]
    assert planned.indices == tuple(index_of("digest", 5, number, num_records) for number in numbers)
    places = zip(numbers, planned.indices, strict=True)
    assert planned.draws == tuple(f"5/{number // num_records}/{index}" for number, index in places)
    for attempt in range(num_records):
        expected = index_of("digest", 5, numbers[-1], num_records, attempt)
        assert plan.slot(step, batch_size - 1, attempt).index == expected


def test_takers_share_as_lines_rise():
    """By hand: floor(3n / 4) is 0 0 1 2 3 3 4 5 6, so 3 of 4 go to the first, all but numbers 0 and 4."""
    assert [shared(n, (3, 1))[0] for n in range(8)] == [1, 0, 0, 0, 1, 0, 0, 0]
    assert [shared(n, (1, 1)) for n in range(4)] == [(1, 0), (0, 0), (1, 1), (0, 1)]
    assert [shared(n, (2, 1, 1))[0] for n in range(8)] == [2, 0, 1, 0, 2, 0, 1, 0]
    assert whole_weights([Fraction(7, 10), Fraction(2, 10), Fraction(1, 10)]) == (7, 2, 1)


@given(weights=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), start=st.integers(0, 10**12))
@settings(max_examples=60, deadline=None)
def test_every_window_holds_the_exact_shares(weights, start):
    window = [shared(start + n, weights) for n in range(sum(weights))]
    for taker, weight in enumerate(weights):
        numbers = [number for who, number in window if who == taker]
        assert len(numbers) == weight
        assert numbers == list(range(numbers[0], numbers[0] + weight)) if numbers else weight == 0


@pytest.mark.parametrize(("size", "block"), [(1, 1), (7, 3), (7, 7), (7, 100), (40, 8), (101, 10)])
def test_blocks_come_whole_one_after_another(size, block):
    orders = set()
    for epoch in range(20):
        order = [in_blocks(place, size, block, "d", 3, epoch) for place in range(size)]
        assert sorted(order) == list(range(size))
        changes = sum(a // block != b // block for a, b in pairwise(order))
        assert changes == -(-size // block) - 1
        orders.add(tuple(order))
    assert len(orders) > min(size // 2, 10)
