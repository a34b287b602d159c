"""What a plan takes of its datasets and what it leaves out, told before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import attrs

from mm_config.rules import counted
from mm_config.specs import Tails
from mm_data.records import Shape


@attrs.frozen
class Given:
    """A bucket, and what fills it."""

    shape: Shape
    """Of its clips in a batch."""
    size: int
    """Clips in a batch, over all ranks."""
    clips: tuple[int, ...]
    """Of each dataset, in the order of a mixture's parts."""
    batches: Fraction
    """In a pass over all clips; a fraction where tails are carried on."""
    tail: int
    """Of a pass: the samples of the last batch that the bucket's own clips don't fill; 0 where they fit."""


@attrs.frozen
class LeftOut:
    """Clips of a dataset that no step trains on."""

    part: int
    """Which of a mixture's parts; 0 where there is no mixture."""
    reason: str
    """Why."""
    count: int
    """How many."""
    first: tuple[str, ...]
    """Some of them, by their files."""


@attrs.frozen
class Counts:
    """What a plan is made of."""

    given: tuple[Given, ...]
    """Each bucket."""
    left_out: tuple[LeftOut, ...]
    """Why clips are left out, the most frequent reason of each dataset first."""
    sizes: tuple[int, ...]
    """Clips of each dataset before any was left out."""
    tails: Tails
    """What becomes of batches that are not full."""

    @property
    def clips(self) -> int:
        """Clips that steps train on."""
        return sum(sum(given.clips) for given in self.given)

    def lines(self) -> Iterator[str]:
        """What a person should know before the first step; nothing where all clips are one bucket."""
        yield from self.left_out_lines()
        if len(self.given) > 1 or (self.tails is not Tails.CARRY and any(one.tail for one in self.given)):
            for given in self.given:
                yield f"{_named(given.shape)}: {self._filled(given)}"

    def left_out_lines(self) -> Iterator[str]:
        """Which clips no step trains on, and why."""
        for out in self.left_out:
            of = f" of part {out.part}" if len(self.sizes) > 1 else ""
            count = f"{out.count:,} of {counted(self.sizes[out.part], 'clip')}{of}"
            yield f"left out: {count}, {out.reason}: {_some(out)}"

    def _filled(self, given: Given) -> str:
        parts = " + ".join(f"{clips:,}" for clips in given.clips)
        clips = "clip" if parts == "1" else "clips"
        batches = f"{float(given.batches):,.6g} {'batch' if given.batches == 1 else 'batches'}"
        one = given.tail == 1
        what = {
            Tails.CARRY: "begins the next" if one else "begin the next",
            Tails.PAD: f"{'is' if one else 'are'} seen twice to fill the last batch",
            Tails.DROP: f"{'is' if one else 'are'} left out of each",
        }
        few = sum(given.clips) < given.size
        tail = ""
        if few and self.tails is Tails.DROP:
            tail = "; fewer than a batch, which they fill by being seen more than once"
        elif given.tail:
            tail = f"; {given.tail} {what[self.tails]}"
        return f"{parts} {clips}, {batches} of {given.size} in an epoch{tail}"


def _named(shape: Shape) -> str:
    return f"{shape.num_frames}x{shape.height}x{shape.width}"


def _some(out: LeftOut) -> str:
    more = f" and {out.count - len(out.first):,} more" if out.count > len(out.first) else ""
    return ", ".join(out.first) + more


def tail_of(clips: int, size: int, tails: Tails) -> int:
    """Samples at the end of an epoch that need the policy: those over, or those that are missing to fill."""
    if tails is Tails.PAD or (tails is Tails.DROP and clips < size):
        return -clips % size
    return clips % size


def period_of(clips: int, size: int, tails: Tails) -> int:
    """Samples in an epoch of a bucket."""
    if tails is Tails.CARRY:
        return clips
    rounded = -(-clips // size) if tails is Tails.PAD else max(clips // size, 1)
    return rounded * size


def shares(weights: Sequence[Fraction], clips: Sequence[Sequence[int]]) -> list[list[Fraction]]:
    """The share of all samples that each part gives to each bucket: `[bucket][part]`.

    A part's own clips come equally often, in whatever bucket they are.

    Args:
        weights: Of each part.
        clips: Clips by bucket and part.
    """
    totals = [sum(bucket[part] for bucket in clips) for part in range(len(weights))]
    whole = sum(weights)
    return [
        [weights[part] / whole * Fraction(bucket[part], totals[part]) for part in range(len(weights))]
        for bucket in clips
    ]
