"""Every epoch holds the samples that a plain second implementation counts, and mixtures keep their shares."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction

import attrs
import pytest

from mm_config.specs.data import Order, Tails
from mm_data import make_plan
from mm_data.mixing import mixed
from mm_data.records import Shape
from tests.mm_data.plans import bucket, measured, mixture, spec

FRAMES = (5, 9, 13, 17)
"""Frames of buckets; a clip of as many at 16 frames/s fills just its own."""


def combination(seed: int):
    """A random data spec and its dataset: buckets with batch sizes, one dataset or several, tails, order."""
    choose = random.Random(seed)
    frames = choose.sample(FRAMES, choose.randint(1, 4))
    buckets = tuple(bucket(one, 32, 32, choose.choice([None, 1, 2, 6])) for one in frames)
    counts = [
        {one: choose.randint(0, 13) for one in frames} | {frames[0]: choose.randint(1, 13)}
        for _ in range(choose.choice([1, 1, 2, 3]))
    ]
    parts = []
    for name, count in enumerate(counts):
        clips = [(one - 1, 32, 32) for one in frames for _ in range(count[one])]
        choose.shuffle(clips)
        parts.append(measured(clips, str(name)))
    data = spec(
        buckets=buckets,
        order=choose.choice(list(Order)),
        shuffle_block=choose.choice([None, 3]),
        batch_size=choose.randint(1, 5),
    )
    if len(parts) == 1:
        return attrs.evolve(data, tails=choose.choice(list(Tails))), parts[0], counts
    weights = [choose.choice([0.3, 0.5, 1.0, 2.0]) for _ in parts]
    return attrs.evolve(data, dataset=mixture(*weights)), mixed(parts, weights), counts


def taken(plan, steps):
    """The samples of the first steps, as the plan's batches have them."""
    return [
        (planned.shape.num_frames, index, draw)
        for planned in map(plan.batch, range(steps))
        for index, draw in zip(planned.indices, planned.draws, strict=True)
    ]


@pytest.mark.parametrize(
    "seed", [*range(20), *(pytest.param(n, marks=pytest.mark.slow) for n in range(20, 200))]
)
def test_epochs_hold_what_is_counted_plainly(seed):
    data, dataset, counts = combination(seed)
    plan = make_plan(data, dataset, seed)
    passes = 3
    if dataset.parts:
        check_mixture(data, dataset, counts, plan, passes)
    else:
        check_single(data, counts[0], plan, passes, seed)


def check_single(data, count, plan, passes, seed):
    """Each bucket by itself: how many samples it gives in so many passes, and in which epoch each stands."""
    sizes = {one.num_frames: one.batch_size or data.batch_size for one in data.buckets}
    per_pass = {
        Tails.CARRY: lambda clips, size: Fraction(clips, size),
        Tails.PAD: lambda clips, size: (clips + size - 1) // size,
        Tails.DROP: lambda clips, size: max(clips // size, 1),
    }[data.tails]
    batches = {frames: int(passes * per_pass(n, sizes[frames])) for frames, n in count.items() if n}
    samples = taken(plan, sum(batches.values()))
    assert Counter(frames for frames, *_ in samples) == {f: n * sizes[f] for f, n in batches.items() if n}
    for frames, number in batches.items():
        clips, size = count[frames], sizes[frames]
        own = [(index, draw) for f, index, draw in samples if f == frames]
        assert len(set(own)) == len(own)  # Each sample has a draw of its own.
        epochs = [Counter(index for index, draw in own if draw.split("/")[1] == str(n)) for n in range(99)]
        length = clips if data.tails is Tails.CARRY else int(per_pass(clips, size)) * size
        whole, rest = divmod(number * size, length)
        for epoch in epochs[:whole]:
            assert epoch.total() == length
            assert len(epoch) == min(clips, length)
            assert max(epoch.values()) - min(epoch.values()) <= 1
        # Batches of a pass come in any order, so an epoch that has begun holds some of its clips.
        assert epochs[whole].total() == rest
        assert sum(epoch.total() for epoch in epochs) == number * size
        assert {draw.split("/")[0] for _, draw in own} <= {str(seed)}


def check_mixture(data, dataset, counts, plan, passes):
    weights = [Fraction(str(part.weight)) for part in data.dataset.parts]
    total = sum(sum(count.values()) for count in counts)
    shares = [weight / sum(weights) for weight in weights]
    sizes = {one.num_frames: one.batch_size or data.batch_size for one in data.buckets}
    expected = {
        frames: sum(
            share * count[frames] / sum(count.values()) for share, count in zip(shares, counts, strict=True)
        )
        for frames in sizes
    }
    batches = {frames: int(passes * total * share / sizes[frames]) for frames, share in expected.items()}
    samples = taken(plan, sum(batches.values()))
    assert Counter(f for f, *_ in samples) == {f: n * sizes[f] for f, n in batches.items() if n}
    starts = [sum(len(part.records) for part in dataset.parts[:n]) for n in range(len(counts))]
    slack = sum(sizes.values()) + len(weights) * len(sizes)
    for start, share, part in zip(starts, shares, dataset.parts, strict=True):
        own = [s for s in samples if start <= s[1] < start + len(part.records)]
        assert abs(len(own) - share * passes * total) <= slack
        for frames in sizes:
            in_bucket = [(index, draw) for f, index, draw in own if f == frames]
            assert len(set(in_bucket)) == len(in_bucket)
            seen = Counter(index for index, _ in in_bucket)
            # A pass may end with the batches of the next begun, but never twice ahead.
            assert not seen or max(seen.values()) - min(seen.values()) <= 1


def test_one_step_knows_nothing_of_the_others():
    data, dataset, _ = combination(7)
    plans = [make_plan(data, dataset, 1) for _ in range(2)]
    forwards = [plans[0].batch(step) for step in range(30)]
    assert forwards == [plans[1].batch(step) for step in reversed(range(30))][::-1]
    assert forwards != [make_plan(data, dataset, 2).batch(step) for step in range(30)]


def test_substitutes_are_the_clips_of_the_same_bucket_and_part():
    parts = (measured([(4, 9, 9)] * 5 + [(8, 9, 9)] * 3, "a"), measured([(8, 9, 9)] * 4, "b"))
    data = spec(buckets=(bucket(5, 32, 32), bucket(9, 32, 32)), dataset=mixture(1.0, 1.0))
    plan = make_plan(data, mixed(parts, [1.0, 1.0]), 0)
    groups = [{0, 1, 2, 3, 4}, {5, 6, 7}, {8, 9, 10, 11}]
    for step in range(10):
        for position, index in enumerate(plan.batch(step).indices):
            others = [plan.slot(step, position, n).index for n in range(plan.attempts(step, position))]
            (own,) = [group for group in groups if index in group]
            assert others[0] == index
            assert sorted(others) == sorted(own)


def test_shares_of_a_mixture_are_exact_in_each_batch():
    """3 to 1 in batches of 4: three of the first part's 6 clips and one of the second's 2 in each."""
    data = spec(dataset=mixture(0.75, 0.25), num_frames=5, height=32, width=32)
    parts = [measured([(9, 9, 9)] * 6, "a"), measured([(9, 9, 9)] * 2, "b")]
    plan = make_plan(data, mixed(parts, [0.75, 0.25]), 0)
    batches = [plan.batch(step).indices for step in range(8)]
    assert all(sum(index < 6 for index in batch) == 3 for batch in batches)
    for pair in (0, 2, 4, 6):  # Two batches are an epoch of either part.
        assert sorted(batches[pair] + batches[pair + 1]) == list(range(8))
    assert plan.counts.given[0].clips == (6, 2)


def test_sequential_buckets_keep_the_order_and_come_evenly():
    clips = [(4, 9, 9), (8, 9, 9), (4, 9, 9), (8, 9, 9), (4, 9, 9), (4, 9, 9)]
    data = spec(buckets=(bucket(5, 32, 32), bucket(9, 32, 32)), order=Order.SEQUENTIAL, batch_size=1)
    plan = make_plan(data, measured(clips), 0)
    # By hand: 4 of 6 go to the shorter bucket, floor(4n / 6) = 0 0 1 2 2 3 4.
    assert [plan.batch(step).indices[0] for step in range(12)] == [1, 0, 2, 3, 4, 5] * 2


@pytest.mark.parametrize(
    ("tails", "expected"),
    [
        (Tails.CARRY, [[0, 1, 2], [3, 4, 0], [1, 2, 3]]),
        (Tails.PAD, [[0, 1, 2], [3, 4, 0]] * 2),
        (Tails.DROP, [[0, 1, 2]] * 2),
    ],
)
def test_tails_by_hand(tails, expected):
    data = spec(num_frames=5, height=9, width=9, order=Order.SEQUENTIAL, batch_size=3, tails=tails)
    plan = make_plan(data, measured([(9, 9, 9)] * 5), 0)
    assert [list(plan.batch(step).indices) for step in range(len(expected))] == expected


def test_small_buckets_are_kept():
    """Of 9 clips one is alone in its bucket of 4: carried it is a batch each 4 epochs, dropped one each."""
    clips = [(8, 9, 9)] * 8 + [(4, 9, 9)]
    data = spec(buckets=(bucket(5, 32, 32), bucket(9, 32, 32)))
    carried = make_plan(data, measured(clips), 0)
    assert sum(carried.shape(step) == Shape(5, 32, 32) for step in range(9)) == 1  # 4 epochs: 8 + 1 batches.
    dropped = make_plan(attrs.evolve(data, tails=Tails.DROP), measured(clips), 0)
    assert sum(dropped.shape(step) == Shape(5, 32, 32) for step in range(9)) == 3  # 3 epochs of 2 + 1.


def test_tokens_decide_how_many_clips_fit():
    data = spec(buckets=(bucket(5, 32, 32), bucket(9, 32, 32)), batch_size=2, tokens_per_batch=100)
    plan = make_plan(
        data, measured([(8, 9, 9)] * 8 + [(4, 9, 9)] * 8), 0, tokens_of=lambda shape: 3 * shape.num_frames
    )
    # 100 tokens hold 6 clips of 15; 3 of 27, of which 2 are a multiple of the batch size.
    assert {(given.shape.num_frames, given.size) for given in plan.counts.given} == {(5, 6), (9, 2)}
