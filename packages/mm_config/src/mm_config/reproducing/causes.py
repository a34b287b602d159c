"""Why an outcome differs: what of a run's origin has changed, the likeliest first."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

import attrs

from mm_config.reproducing.difference import FRAMES, Difference
from mm_config.runs.provenance_diff import OriginChange

_ROUNDING = 1e-5
"""A share that sums of float32 in another order can come to by themselves."""
_ROUNDING_OF_FRAMES = 2 / 255
"""The same after frames were rounded to 8 bits and encoded."""


class Cause(enum.Enum):
    """What an outcome depends on beside its spec."""

    FILES = "stored files"
    """What was stored is not what was written."""
    DATA = "data"
    WEIGHTS = "weights"
    CODE = "code"
    VERSIONS = "versions of packages"
    THREADS = "number of threads"
    DEVICE = "device"


_NAMES = {
    Cause.DATA: "data",
    Cause.WEIGHTS: "weights|release",
    Cause.CODE: r"numerics|git .*, (commit|uncommitted changes)|git .*, untracked files|spec_hash",
    Cause.VERSIONS: "python|package",
    Cause.THREADS: "threads|intra_op_threads|cpu_count",
    Cause.DEVICE: "devices|ops|platform|host|variable|execution settings|[A-Z_]*WORLD_SIZE",
}
"""How the changes begin that may be a cause."""
_CERTAIN = (Cause.DATA, Cause.WEIGHTS)
"""Found by digests of what was read, so the outcome has to differ."""
_OF_ROUNDING = (Cause.THREADS, Cause.DEVICE, Cause.VERSIONS)
"""What changes the last bits alone, as a rule."""


@attrs.frozen
class Suspect:
    """A cause with what speaks for it."""

    cause: Cause
    """What may differ."""
    changes: tuple[OriginChange, ...]
    """None for `FILES`, of which the differences tell."""


def suspects(origin: Sequence[OriginChange], differences: Sequence[Difference]) -> tuple[Suspect, ...]:
    """The causes that something speaks for, the likeliest first; none where nothing differs.

    Other data and other weights come before all: they were found by their digests. What changes the last bits
    alone comes before the code where the first difference is no larger than rounding makes it.
    """
    if not differences:
        return ()
    rounded = _is_rounding(next((one for one in differences if one.share is not None), None))
    order = (*_CERTAIN, *((*_OF_ROUNDING, Cause.CODE) if rounded else (Cause.CODE, *reversed(_OF_ROUNDING))))
    found = [
        Suspect(cause, changes)
        for cause in order
        if (changes := tuple(one for one in origin if re.match(_NAMES[cause], one.name) and _counts(one)))
    ]
    if any(one.damaged for one in differences):
        damage = Suspect(Cause.FILES, ())
        return (damage, *found) if all(one.damaged for one in differences) else (*found, damage)
    return tuple(found)


def _counts(change: OriginChange) -> bool:
    """Whether a change can alter an outcome: untracked files that are no code can't."""
    listed = f"{change.old} {change.new}"
    return "untracked files" not in change.name or bool(re.search(r"\.(py|so|toml)\b| more\b", listed))


def _is_rounding(first: Difference | None) -> bool:
    if first is None or first.share is None:
        return False
    return first.share <= (_ROUNDING_OF_FRAMES if first.kind == FRAMES else _ROUNDING)
