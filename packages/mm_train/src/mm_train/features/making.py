"""Features made for all clips and captions of a dataset, whatever of them is not there yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import attrs

import mm_data
from mm_config.console import progress
from mm_config.specs import DataSpec
from mm_data import (
    Asked,
    Bad,
    BadClip,
    Store,
    caption_key,
    clip_key,
    place_of,
    state_of,
    variant_of,
    with_variant,
)
from mm_train.features.encoding import Encoders, Row, loaded
from mm_train.features.kinds import OF_CLIPS, TEXT

ROWS_PER_SHARD = 8
"""Clips in a shard: so many are lost where a process is killed, and made again where a byte is damaged."""
CAPTIONS_PER_SHARD = 64
"""Captions that are encoded at once."""


@attrs.frozen(eq=False)
class Names:
    """What a dataset's features are called."""

    data: DataSpec
    """What chooses timestamps, framing and captions."""
    contents: Sequence[str | None]
    """sha256 of each clip's file, in the order of the dataset; None where it is not there."""
    made_with: Mapping[str, str]
    """The digest of what makes each kind."""

    def kept(self, asked: Asked) -> Asked:
        """The variant of a clip that is kept for a draw."""
        return variant_of(asked, self.contents[asked.index], self.data)

    def variants(self, asks: Iterable[Asked]) -> Iterator[Asked]:
        """All variants of clips."""
        for asked in asks:
            for number in range(self.data.variants):
                yield with_variant(asked, self.contents[asked.index], number)

    def of_clip(self, kind: str, kept: Asked) -> str:
        """The key of a variant's features."""
        return clip_key(self.made_with[kind], self.contents[kept.index], kept, self.data)

    def of_caption(self, caption: str) -> str:
        """The key of a caption's features."""
        return caption_key(self.made_with[TEXT], caption)


def make_captions(
    captions: Iterable[str], names: Names, store: Store, encoders: Encoders, share: tuple[int, int] = (0, 1)
) -> None:
    """Encodes this share of the captions that have no features; each once, however often it comes.

    Args:
        captions: As they are after all that is done to captions.
        names: What features are called.
        store: Where they go.
        encoders: What makes them.
        share: Which share, and of how many.

    Raises:
        UserError: A caption is too long, or features can't be written.
    """
    seen: set[str] = set()

    def missing() -> Iterator[tuple[str, str]]:
        for caption in captions:
            key = names.of_caption(caption)
            if key not in seen and int(key[:8], 16) % share[1] == share[0] and key not in store:
                yield key, caption
            seen.add(key)

    left = missing()
    while some := dict(islice(left, CAPTIONS_PER_SHARD)):
        rows = encoders.of_captions(list(some.values()))
        store.write(dict(zip(some, rows, strict=True)))


def make_clips(
    asks: Iterable[Asked],
    count: int,
    names: Names,
    stores: Mapping[str, Store],
    encoders: Encoders,
    share: tuple[int, int] = (0, 1),
) -> list[Bad]:
    """Encodes this share of the clips that lack features of some kind; returns those that can't be read.

    At most `data.workers + 1` clips and the rows of a shard are in memory.

    Args:
        asks: All variants of all clips.
        count: How many these are.
        names: What features are called.
        stores: Where they go, by kind.
        encoders: What makes them.
        share: Which share, and of how many.

    Raises:
        UserError: Features can't be written, or the machine can't read a clip.
    """
    kinds = [kind for kind in OF_CLIPS if kind in stores]
    bad: list[Bad] = []
    with progress("encode clips", -(-count // share[1]), unit="clip", every=128) as bar:

        def mine() -> Iterator[Asked]:
            for number, asked in enumerate(asks):
                if number // ROWS_PER_SHARD % share[1] == share[0]:
                    if missing_kinds(asked, kinds, names, stores):
                        yield asked
                    else:
                        bar.advance(1)

        rows: dict[str, dict[str, Row]] = {kind: {} for kind in kinds}
        for asked, clip in loaded(mine(), names.data):
            bar.advance(1)
            if isinstance(clip, BadClip):
                bad.append(bad_clip(asked, clip.stage, clip.reason))
                continue
            for kind, row in encoders.of_clip(clip, missing_kinds(asked, kinds, names, stores)).items():
                rows[kind][names.of_clip(kind, asked)] = row
                if len(rows[kind]) == ROWS_PER_SHARD:
                    stores[kind].write(rows[kind])
                    rows[kind] = {}
        for kind, rest in rows.items():
            if rest:
                stores[kind].write(rest)
    return bad


def bad_clip(asked: Asked, stage: str, reason: str) -> Bad:
    """A clip without features."""
    return Bad(asked.index, place_of(asked.record), stage, reason, state_of(asked.record))


def missing_kinds(
    kept: Asked, kinds: Collection[str], names: Names, stores: Mapping[str, Store]
) -> list[str]:
    """The kinds of features that a clip lacks."""
    return [kind for kind in kinds if names.of_clip(kind, kept) not in stores[kind]]


def captions_of(asks: Iterable[Asked], names: Names) -> Iterator[str]:
    """The empty caption, and all that samples of the clips can have."""
    yield ""
    for asked in asks:
        yield from mm_data.captions_of(asked.record, names.data)


Asks = Callable[[], Iterable[Asked]]
"""All clips as the plan asks for them, from the beginning each time that it is called."""
