"""From one row of a table, whatever it was written in, to what it says of a clip."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeVar

import attrs

from mm_config.schema import Problem, UserError, did_you_mean
from mm_data.index.listed import Declared, LeftOut, Listed
from mm_data.index.sources.files import Files
from mm_data.manifest import LONE_SURROGATE, capped
from mm_data.remote import without_password

PATHS = (
    *("path", "video", "video_path", "image", "image_path", "file", "file_name", "filename", "file_path"),
    *("filepath", "media", "media_path", "clip", "clip_path", "url", "video_url", "image_url"),
)
"""Columns that are taken for a clip's file."""
CAPTIONS = ("caption", "cap", "captions", "prompt", "text", "description")
"""Columns that are taken for captions."""
KNOWN = (
    *("num_frames", "fps", "height", "width", "resolution", "duration", "aesthetic", "aes"),
    *("cut", "frame_idx", "crop"),
)
"""Further columns that are read."""
MOST_OF_A_CAPTION = 65_536
NO_CAPTION = "it has no caption"
N = TypeVar("N", int, float)


@attrs.frozen
class Columns:
    """Which columns name files and hold captions."""

    path: str
    """Files."""
    caption: str
    """Captions, each a text or a list of texts."""


@attrs.frozen
class Row:
    """One entry."""

    place: str
    """`FILE:LINE`."""
    values: Mapping[str, Any]
    """By column."""


def columns_of(keys: Collection[str], where: str, path: str | None, caption: str | None) -> Columns:
    """The columns that are named, else the ones that are found.

    Raises:
        UserError: There is none, or more than one could be meant.
    """
    found, problems = [], list[Problem]()
    for wanted, flag, candidates in ((path, "--path-column", PATHS), (caption, "--caption-column", CAPTIONS)):
        there = [name for name in candidates if name in keys]
        if wanted is not None and wanted not in keys:
            columns = ", ".join(map(repr, keys))
            problems.append(
                Problem(
                    where, f"there is no column {wanted!r}{did_you_mean(wanted, keys)}; columns: {columns}"
                )
            )
        elif wanted is None and len(there) != 1:
            what = " and ".join(map(repr, there)) + " could both be meant" if there else "none is known"
            among = "" if there else f" among {', '.join(map(repr, keys)) or 'no columns'}"
            problems.append(Problem(where, f"{what}{among}; name the column by {flag}"))
        else:
            found.append(wanted or there[0])
    if problems:
        raise UserError(problems)
    return Columns(*found)


def unused(keys: Iterable[str], columns: Columns) -> list[str]:
    """The columns that nothing reads."""
    return [key for key in keys if key not in (columns.path, columns.caption, *KNOWN)]


def listed_rows(
    rows: Iterable[Row], files: Files, where: str, path: str | None, caption: str | None
) -> Iterator[Listed | LeftOut]:
    """What rows say of clips, in their order; columns are found in the first.

    Raises:
        UserError: Wrong rows, all of them, after the last.
    """
    problems: list[Problem] = []
    columns: Columns | None = None
    try:
        for row in rows:
            columns = columns or columns_of(list(row.values), where, path, caption)
            wrong: list[str] = []
            found = entry(row, columns, files, wrong)
            if wrong:
                problems += [Problem(row.place, message) for message in wrong]
            elif found is not None:
                yield found
    except UserError as error:  # Lines that are no rows at all, told when the last was read.
        problems = sorted([*problems, *error.problems], key=_line)
    if problems:
        raise UserError(capped(problems, where))


def _line(problem: Problem) -> int:
    number = problem.path.rpartition(":")[2]
    return int(number) if number.isdecimal() else sys.maxsize


def entry(row: Row, columns: Columns, files: Files, wrong: list[str]) -> Listed | LeftOut | None:
    """What a row says of a clip; None where `wrong` got what is wrong with it."""
    values = row.values
    name = values.get(columns.path)
    if not isinstance(name, str) or LONE_SURROGATE.search(name):
        wrong.append(_missing(columns.path, values, "the path of a file"))
        return None
    captions = captions_in(values.get(columns.caption), columns.caption, wrong)
    cut, shots = _cuts(values, wrong)
    declared = _declared(values, cut, wrong)
    crop = _crop(values.get("crop"), wrong)
    try:
        located = files.located(name)
    except ValueError as error:
        wrong.append(f"{error}: {without_password(name)[:200]!r}")
        return None
    if wrong:
        return None
    if located.url is None:
        name = name.replace("\\", "/").removeprefix("./")
    if not captions:
        return LeftOut(name, row.place, NO_CAPTION)
    return Listed(name, located.path, captions, row.place, cut, shots, crop, None, located.url, declared)


def _missing(key: str, values: Mapping[str, Any], what: str) -> str:
    if key not in values:
        return f"the key {key!r} is missing"
    return f"{key!r} must be {what}, got {shown(values[key])}"


def captions_in(value: Any, key: str, wrong: list[str]) -> tuple[str, ...]:
    """The captions of a cell, without empty ones."""
    texts = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in texts):
        wrong.append(f"{key!r} must be a text or a list of texts, got {shown(value)}")
        return ()
    if any(LONE_SURROGATE.search(text) for text in texts):
        wrong.append(f"{key!r} holds half of a surrogate pair, which is no character")
    if any(len(text) > MOST_OF_A_CAPTION for text in texts):
        wrong.append(f"{key!r} has more than {MOST_OF_A_CAPTION:,} characters")
    return tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))


def _cuts(
    values: Mapping[str, Any], wrong: list[str]
) -> tuple[tuple[int, int] | None, tuple[tuple[int, int], ...]]:
    """The cut of an entry, or several.

    `frame_idx` is `"a:b"`, from frame a to before frame b. `cut` is `[a, b]`, or `[a]` with `num_frames`
    from a on, as Open-Sora-Plan has them; a list of pairs are shots.
    """
    cut, indices = _json(values.get("cut")), values.get("frame_idx")
    found: list[tuple[int, int]] = []
    if isinstance(cut, list) and cut and all(isinstance(one, list) for one in cut):
        pairs = cut
    elif isinstance(cut, list) and len(cut) == 1 and (frames := whole(values.get("num_frames"))):
        pairs = [[cut[0], cut[0] + frames]] if type(cut[0]) is int else [cut]
    else:
        pairs = [] if _empty(cut) else [cut]
    texts = indices if isinstance(indices, list) else [] if _empty(indices) else [indices]
    for text in texts:
        match = re.fullmatch(r"\s*(\d{1,9})\s*:\s*(\d{1,9})\s*", text) if isinstance(text, str) else None
        pairs = [*pairs, [int(match[1]), int(match[2])] if match else text]
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(one) is int for one in pair)):
            wrong.append(
                f'a cut must be `"cut": [first, end]` or `"frame_idx": "first:end"`, got {shown(pair)}'
            )
        elif not 0 <= pair[0] < pair[1]:
            wrong.append(f"a cut must end after its first frame, got {pair[0]}:{pair[1]}")
        elif tuple(pair) not in found:
            found.append((pair[0], pair[1]))
    return (found[0], ()) if len(found) == 1 else (None, tuple(found))


def _declared(values: Mapping[str, Any], cut: tuple[int, int] | None, wrong: list[str]) -> Declared:
    """What an entry claims; the frames of a cut are the cut's and no claim about the file."""
    size = _json(values.get("resolution"))
    if isinstance(size, dict):
        height, width = size.get("height"), size.get("width")
    elif _empty(size):
        height, width = values.get("height"), values.get("width")
    else:
        wrong.append(f"'resolution' must be {SPELLINGS}, got {shown(size)}")
        height = width = None
    score = values.get("aes") if _empty(values.get("aesthetic")) else values.get("aesthetic")
    frames = _number("num_frames", values.get("num_frames"), whole, wrong)
    return Declared(
        num_frames=None if cut is not None and frames == cut[1] - cut[0] else frames,
        fps=_number("fps", values.get("fps"), real, wrong),
        height=_number("height", height, whole, wrong),
        width=_number("width", width, whole, wrong),
        duration=_number("duration", values.get("duration"), real, wrong),
        aesthetic=_number("aesthetic", score, real, wrong),
    )


def _number(key: str, value: Any, read: Callable[[Any], N | None], wrong: list[str]) -> N | None:
    found = None if _empty(value) else read(value)
    if found is None and not _empty(value):
        kind = "whole number above 0" if read is whole else "number"
        wrong.append(f"{key!r} must be a {kind}, got {shown(value)}")
    return found


SPELLINGS = '`"resolution": {"height": 480, "width": 832}` or `"height": 480, "width": 832`'


def _crop(value: Any, wrong: list[str]) -> tuple[int, int, int, int] | None:
    """Open-Sora-Plan's `[left, right, top, bottom]` as top, left, height and width; ends are excluded."""
    value = _json(value)
    if _empty(value) or (isinstance(value, list) and all(one is None for one in value)):
        return None
    if isinstance(value, list) and len(value) == 4 and all(type(one) is int for one in value):
        left, right, top, bottom = value
        if 0 <= left < right and 0 <= top < bottom:
            return top, left, bottom - top, right - left
    wrong.append(f"'crop' must be [left, right, top, bottom] in pixels, got {shown(value)}")
    return None


def whole(value: Any) -> int | None:
    """A whole number above 0 as JSON or a cell of a table has it; None of anything else."""
    found = real(value)
    return int(found) if found is not None and found > 0 and found == int(found) else None


def real(value: Any) -> float | None:
    """A finite number, also as text or as a fraction such as 30000/1001; None of anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and len(value) <= 40:
        try:
            value = float(Fraction(value.strip())) if "/" in value else float(value)
        except (ValueError, ZeroDivisionError):
            return None
    if isinstance(value, int) and abs(value) >= 2**63:
        return None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _json(value: Any) -> Any:
    """Lists and objects that a cell of a table holds as JSON; empty cells are None."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | Sequence) and not value) or value != value


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    return json.dumps(value, ensure_ascii=False, default=str)[:60]
