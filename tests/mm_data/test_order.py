"""The order of samples is a permutation per epoch, fixed by its arguments alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_data import batch_indices
from mm_data.plan.order import index_of


@given(
    num_records=st.integers(1, 300),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**64 - 1),
    epochs=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_each_epoch_visits_every_record_once(num_records, batch_size, seed, epochs):
    steps = -(-epochs * num_records // batch_size)
    drawn = [n for step in range(steps) for n in batch_indices("d", seed, step, batch_size, num_records)]
    for epoch in range(epochs):
        assert sorted(drawn[epoch * num_records : (epoch + 1) * num_records]) == list(range(num_records))


def test_epochs_seeds_and_digests_have_orders_of_their_own():
    orders = {
        batch_indices(digest, seed, step, 100, 100)
        for digest in ("a", "b")
        for seed in (0, 1)
        for step in (0, 1)
    }
    assert len(orders) == 8


def test_the_order_is_frozen():
    assert batch_indices("digest", 7, 3, 8, 1000) == (337, 251, 563, 350, 699, 160, 757, 394)
    assert batch_indices("digest", 7, 10**12, 1, 601_513) == (81659,)


@pytest.mark.parametrize("num_records", [5, 24, 1000])
def test_first_places_are_spread_evenly(num_records):
    """Over many epochs every record comes first about equally often (chi-square, 5 sigma)."""
    epochs = 200 * num_records if num_records < 100 else 20_000
    counts = [0] * num_records
    for epoch in range(epochs):
        counts[index_of("d", 0, epoch * num_records, num_records)] += 1
    expected = epochs / num_records
    chi_square = sum((count - expected) ** 2 / expected for count in counts)
    freedom = num_records - 1
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_neighbours_do_not_stay_neighbours():
    order = batch_indices("d", 0, 0, 10_000, 10_000)
    close = sum(abs(a - b) <= 10 for a, b in pairwise(order))
    assert 5 < close < 60


def test_substitutes_run_through_the_whole_epoch():
    number = 3 * 50 + 41
    substitutes = [index_of("d", 0, number, 50, attempt) for attempt in range(50)]
    assert sorted(substitutes) == list(range(50))
    assert substitutes[1] == index_of("d", 0, number + 1, 50)
    assert substitutes[9] == index_of("d", 0, 3 * 50, 50)
