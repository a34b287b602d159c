"""What there is to say of clips before a training: counts, sizes, what is left out, what is twice."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import attrs
import numpy as np

from mm_config.content import sha256_of_files
from mm_config.schema import UserError
from mm_config.specs import DataSpec
from mm_data.index.table import Flag, IndexedRecords, read_stats
from mm_data.looking.likeness import alike
from mm_data.looking.numbers import Numbers, indexes_of, numbers_of
from mm_data.looking.peeking import Peek, peek_into
from mm_data.looking.sheet import frame_moments
from mm_data.looking.subject import Subject
from mm_data.looking.tokens import token_counts
from mm_data.plan.counts import Counts
from mm_data.plan.plan import Plan
from mm_data.plan.sizing import Outcomes
from mm_data.records import Shape
from mm_data.transforms.captions import captions_of

Group = tuple[int, ...]
"""Places of clips that are the same."""


@attrs.frozen(eq=False)
class Inspection:
    """What was found."""

    subject: Subject
    """Whose clips."""
    peeks: Sequence[Peek]
    """Clips that were looked at, evenly spaced among all."""
    states: Sequence[str]
    """What becomes of each of them: its bucket, or why it is left out; empty where no training is named."""
    numbers: Numbers
    """Of all clips of an index, else of those that were looked at."""
    counts: Counts | None
    """What a training takes and leaves out; None where none is named or it would take nothing."""
    problem: str
    """Why a training would not begin with these clips."""
    unindexed: Mapping[str, int]
    """Clips that were left out when the index was made, by reason."""
    equal: Sequence[Group]
    """Clips with the same bytes and cut: of the whole index, else of those that were looked at."""
    tokens: Sequence[int]
    """Of the captions that the training can choose for the clips that were looked at; none where unknown."""
    tokens_unknown: str
    """Why they are unknown; empty where they are not, or no training is named."""
    alike: Sequence[Group]
    """Clips, of those that were looked at, whose middle frames look the same though their bytes differ."""

    @property
    def clips(self) -> int:
        """All clips."""
        return len(self.subject.dataset.records)

    @property
    def unreadable(self) -> dict[str, int]:
        """Clips that can't be read, by reason, of those that were looked at."""
        return dict(Counter(peek.bad for peek in self.peeks if peek.bad).most_common())

    @property
    def left_out(self) -> dict[str, int]:
        """Clips that are left out, by reason: when the index was made, and by the plan."""
        found: Counter[str] = Counter(self.unindexed)
        for one in self.counts.left_out if self.counts else ():
            found[one.reason] += one.count
        return dict(found.most_common())

    @property
    def too_long(self) -> int:
        """Captions with more tokens than the text encoder takes."""
        training = self.subject.training
        return sum(count > training.text_encoder.max_tokens for count in self.tokens) if training else 0

    def names(self, group: Iterable[int]) -> list[str]:
        """The names of clips."""
        return [self.subject.dataset.name_of(index) for index in group]


def inspected(subject: Subject, most: int) -> Inspection:
    """Looks at a dataset.

    Args:
        subject: Whose clips.
        most: How many clips are decoded, one frame each.
    """
    dataset, data = subject.dataset, subject.data
    indexes = indexes_of(dataset)
    for one in indexes:
        one.require_whole()
    indices = frame_moments(len(dataset.records), most)
    peeks = peek_into(subject, indices)
    plan, problem = _plan(subject) if data else (None, "")
    equal = _equal_rows(indexes) if indexes else _equal_files(peeks)
    same = {index: group[0] for group in equal for index in group}
    hashes = {peek.index: peek.looks for peek in peeks if peek.looks is not None}
    groups = [group for group in alike(hashes) if len({same.get(index, index) for index in group}) > 1]
    return Inspection(
        subject,
        peeks,
        _states(data, plan, subject, peeks) if data else [""] * len(peeks),
        numbers_of(dataset, peeks),
        plan.counts if plan else None,
        problem,
        _left_out(indexes),
        equal,
        *_tokens(subject, peeks),
        groups,
    )


def _tokens(subject: Subject, peeks: Sequence[Peek]) -> tuple[Sequence[int], str]:
    if subject.training is None or subject.data is None:
        return (), ""
    captions = [text for peek in peeks for text in captions_of(peek.record, subject.data)]
    return token_counts(subject.training.text_encoder, captions, subject.options.locations)


def _plan(subject: Subject) -> tuple[Plan | None, str]:
    """What the training would take, or why it would not begin."""
    try:
        return subject.plan(), ""
    except UserError as error:
        return None, "; ".join(map(str, error.problems))


def _states(data: DataSpec, plan: Plan | None, subject: Subject, peeks: Sequence[Peek]) -> list[str]:
    """What becomes of each clip that was looked at."""
    taken = [(one, bucket.shape) for bucket in plan.buckets for one in bucket.members] if plan else []
    found: list[str] = []
    for peek in peeks:
        shapes = (shape for one, shape in taken if _holds(one.indices, peek.index - one.offset))
        shape = next(shapes, None)
        if peek.bad:
            found.append("can't be read")
        else:
            found.append(shape_name(shape) if shape else _reason(data, subject, peek))
    return found


def _holds(indices: Sequence[int], index: int) -> bool:
    """Whether rising numbers hold one."""
    place = bisect_left(indices, index)
    return place < len(indices) and indices[place] == index


def shape_name(shape: Shape) -> str:
    """A bucket as a person reads it: frames, height and width."""
    return f"{shape.num_frames}x{shape.height}x{shape.width}"


def _reason(data: DataSpec, subject: Subject, peek: Peek) -> str:
    """Why a clip that can be read is in no bucket."""
    assert peek.measured is not None
    fps = peek.measured.fps
    numbers = {"frames": peek.measured.num_frames, "fps_num": fps.numerator, "fps_den": fps.denominator}
    numbers |= {"height": peek.measured.height, "width": peek.measured.width}
    outcomes = Outcomes(data, subject.grid, f"{subject.dataset.order_key}/{subject.seed}")
    columns = {name: np.array([value]) for name, value in numbers.items()}
    outcome = outcomes.listed[int(outcomes.of(columns, peek.index)[0])]
    return outcome if isinstance(outcome, str) else "left out"


def _left_out(indexes: Sequence[IndexedRecords]) -> Counter[str]:
    """What was left out when indexes were made, by reason; nothing where that file is gone."""
    found: Counter[str] = Counter()
    for one in indexes:
        found.update(read_stats(one.folder).get("left_out", {}).get("reasons", {}))
    return found


def _equal_files(peeks: Sequence[Peek]) -> list[Group]:
    """Clips of the same bytes, cut and crop."""
    readable = [peek for peek in peeks if not peek.bad and peek.record.url is None]
    places: dict[tuple[object, ...], list[int]] = defaultdict(list)
    digests = sha256_of_files(peek.record.path for peek in readable)
    for peek, digest in zip(readable, digests, strict=True):
        places[digest, peek.record.part, peek.record.cut, peek.record.crop].append(peek.index)
    return [tuple(group) for group in places.values() if len(group) > 1]


def _equal_rows(indexes: Sequence[IndexedRecords]) -> list[Group]:
    """Rows of indexes, one after the other, of the same bytes and cut; those with a crop are left out."""
    import pyarrow as pa

    def joined(name: str) -> np.ndarray:
        return np.concatenate([one.columns(name) for one in indexes])

    digests = pa.chunked_array([one.media.column("sha256").take(one.columns("media")) for one in indexes])
    codes = digests.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    whole = np.flatnonzero(joined("flags") & Flag.CROP == 0)
    key = np.stack([codes[whole], joined("cut_start")[whole], joined("cut_end")[whole]])
    order = np.lexsort(key)
    same = np.all(np.diff(key[:, order]) == 0, axis=0)
    ends = np.flatnonzero(np.append(~same, True)) + 1
    starts = np.append(0, ends[:-1])
    groups = (whole[order[start:end]] for start, end in zip(starts, ends, strict=True) if end - start > 1)
    return sorted(tuple(sorted(group.tolist())) for group in groups)
