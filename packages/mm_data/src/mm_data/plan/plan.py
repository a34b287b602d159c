"""What each optimizer step trains on: a batch's shape and its clips, the same on any number of ranks.

All of it is a pure function of (order key, seed, step) in O(1) memory per step. A *pass* sees every clip of
a dataset once. It has as many batches of each bucket as the bucket's clips fill, in an order of its own: a
permutation of the pass's batches (`order`). Batch `k` of a bucket, counted from the start of training, has
the bucket's samples from `k * size` on; sample `m` of a bucket of one dataset is in its epoch `m // period`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import attrs

from mm_data.plan.counts import Counts
from mm_data.plan.order import epoch_keys, in_blocks, permuted
from mm_data.plan.sharing import shared
from mm_data.records import Shape


@attrs.frozen
class Sample:
    """A clip that the plan asks for."""

    index: int
    """Its place in the dataset."""
    draw: str
    """What random choices follow from: the seed, the epoch and the clip."""


@attrs.frozen
class Planned:
    """The global batch of a step, before any bad clip is replaced."""

    step: int
    """Optimizer step, from 0."""
    shape: Shape
    """That of each clip."""
    size: int
    """Clips in the batch, over all ranks."""
    indices: tuple[int, ...]
    """Places in the dataset, in the order of the batch."""
    draws: tuple[str, ...]
    """What each one's random choices follow from."""


@attrs.frozen(eq=False)
class Members:
    """The clips of one dataset that are in one bucket."""

    indices: Sequence[int]
    """Places in their dataset, rising: a range, or an array that may be mapped into memory."""
    offset: int
    """Of a mixture's part: the clips of the parts before it."""
    key: str
    """What their order follows from, beside the seed and the epoch."""
    period: int
    """Samples in an epoch: all of them once, and more or fewer where tails are padded or dropped."""


@attrs.frozen(eq=False)
class Bucket:
    """Clips that are batched together."""

    shape: Shape
    """What they are made to be."""
    size: int
    """Clips in a batch."""
    members: tuple[Members, ...]
    """Of each dataset that gives some."""
    weights: tuple[int, ...]
    """How many samples come from each of them, relative to the others."""
    period: Fraction
    """Samples in a pass."""

    def batches(self, passes: int) -> int:
        """Batches that are full after so many passes."""
        return passes * self.period.numerator // (self.period.denominator * self.size)


class Plan:
    """The batches of a training; safe for use by several threads."""

    def __init__(
        self,
        buckets: Sequence[Bucket],
        counts: Counts,
        key: str,
        seed: int,
        *,
        in_order: bool,
        block: int | None,
        held_out: Plan | None = None,
    ) -> None:
        """Args:
        buckets: At least one; each has clips.
        counts: What they are made of.
        key: What the order of buckets follows from, beside the seed.
        seed: The run's.
        in_order: Whether clips come in the order of their dataset.
        block: Neighbours that are shuffled among each other; None shuffles all.
        held_out: The batches of clips that no step trains on.
        """
        self.buckets = tuple(buckets)
        """What batches are made of."""
        self.counts = counts
        """What is taken of each dataset, and what is left out and why."""
        self.held_out = held_out
        """Batches of clips that are held out of training, of which a pass has each clip at most once; None
        where none are held out."""
        self._batches_per_pass = sum((b.period / b.size for b in self.buckets), Fraction())
        self._key, self._seed, self._in_order, self._block = key, seed, in_order, block
        self._find = lru_cache(maxsize=256)(self._found)

    def shape(self, step: int) -> Shape:
        """The shape of a step's clips."""
        return self._find(step)[0].shape

    def size(self, step: int) -> int:
        """The clips in a step's batch, over all ranks."""
        return self._find(step)[0].size

    def batch(self, step: int) -> Planned:
        """The whole batch of a step."""
        bucket, _ = self._find(step)
        samples = [self.slot(step, position) for position in range(bucket.size)]
        indices = tuple(sample.index for sample in samples)
        return Planned(step, bucket.shape, bucket.size, indices, tuple(sample.draw for sample in samples))

    def slot(self, step: int, position: int, attempt: int = 0) -> Sample:
        """What stands at a position of a step's batch.

        Args:
            attempt: 0 for the planned clip; `k` for the clip `k` places on in the same epoch's order of the
                same dataset and bucket (the first follows the last), which stands in for those before it.
        """
        members, number = self._place(step, position)
        epoch, place = divmod(number, members.period)
        again, place = divmod(place, len(members.indices))
        index = self._index(members, epoch, (place + attempt) % len(members.indices))
        return Sample(index, f"{self._seed}/{epoch}/{index}" + (f"/{again}" if again else ""))

    def attempts(self, step: int, position: int) -> int:
        """How many different clips can stand at a position."""
        return len(self._place(step, position)[0].indices)

    def _place(self, step: int, position: int) -> tuple[Members, int]:
        """Whose clip stands at a position, and how many samples these have given before."""
        bucket, batch = self._find(step)
        which, number = shared(batch * bucket.size + position, bucket.weights)
        return bucket.members[which], number

    def _index(self, members: Members, epoch: int, place: int) -> int:
        size = len(members.indices)
        if self._block is not None and not self._in_order:
            place = in_blocks(place, size, self._block, members.key, self._seed, epoch)
        elif not self._in_order:
            place = permuted(place, size, epoch_keys(members.key, self._seed, epoch))
        return members.offset + int(members.indices[place])

    def _found(self, step: int) -> tuple[Bucket, int]:
        """The bucket of a step, and the number of its batch in the bucket, from the start of training."""
        if len(self.buckets) == 1:
            return self.buckets[0], step
        passed = self._pass_of(step)
        before = [bucket.batches(passed) for bucket in self.buckets]
        counts = [b.batches(passed + 1) - had for b, had in zip(self.buckets, before, strict=True)]
        place = step - sum(before)
        if self._in_order or self._block is not None:  # Neighbours stay together in time.
            which, number = shared(place, counts)
        else:
            number = permuted(place, sum(counts), epoch_keys(f"{self._key}/buckets", self._seed, passed))
            which = 0
            while number >= counts[which]:
                number -= counts[which]
                which += 1
        return self.buckets[which], before[which] + number

    def _pass_of(self, step: int) -> int:
        """The pass that a step is in: the last that begins with it or before."""
        most = int((step + len(self.buckets)) / self._batches_per_pass) + 1
        return bisect_right(range(most + 1), step, key=self.batches) - 1

    def batches(self, passes: int) -> int:
        """Batches that are full after so many passes."""
        return sum(bucket.batches(passes) for bucket in self.buckets)
