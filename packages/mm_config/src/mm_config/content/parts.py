"""Content of many parts, clips of a dataset or files of a release: its digest, and what differs from another.

The digest is of what the parts are and not of their order: the sha256 of their sorted canonical lines.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

import attrs

from mm_config.durable.writing import write_text
from mm_config.schema.diff import for_person
from mm_config.schema.identity import JSON, encoded


@attrs.frozen
class Part:
    """One part."""

    name: str
    """What a person calls it: its path in the dataset or the release."""
    content: tuple[JSON, ...]
    """What it is. Of a clip: sha256 (None where no such file can be read), caption, cut (None for the whole
    clip); of a file: its path in the release, its size in bytes, sha256."""


def digest_of_parts(parts: Iterable[Part]) -> str:
    """The 64 hex digits of what the parts are: sha256 of their RFC 8785 lines, sorted by bytes."""
    digest = hashlib.sha256()
    for line in sorted(map(_line, parts)):
        digest.update(line)
    return digest.hexdigest()


def keep_parts(contents_dir: Path, digest: str, parts: Iterable[Part]) -> None:
    """Keeps the parts of a content, by its digest; those that are kept already stay.

    What can't be kept can't be told part by part later, which is no reason to stop.
    """
    file = _file(contents_dir, digest)
    if file.exists():
        return
    lines = (json.dumps([part.name, *part.content]) + "\n" for part in parts)
    try:
        contents_dir.mkdir(parents=True, exist_ok=True)
        write_text(file, "".join(lines))
    except OSError:
        return


def kept_parts(contents_dir: Path, digest: str) -> tuple[Part, ...] | None:
    """The parts of a content; None where they are not kept here."""
    try:
        rows = [json.loads(line) for line in _file(contents_dir, digest).read_text("utf-8").splitlines()]
        found = tuple(Part(name, tuple(content)) for name, *content in rows)
    except (OSError, ValueError, TypeError):
        return None
    return found if digest_of_parts(found) == digest else None


def differences(old: Iterable[Part], new: Iterable[Part]) -> Iterator[str]:
    """What of the new parts is not as the old ones were, a text for each, by name.

    A part that only has another name, as all of a dataset that was moved, is no difference.
    """
    old, new = tuple(old), tuple(new)
    gone, added = _beyond(old, new, _named), _beyond(new, old, _named)
    before, after = _by_name(gone), _by_name(added)
    left = [part for part in gone if part.name not in after]
    come = [part for part in added if part.name not in before]
    moved = {part.name for part in left} | {part.name for part in come}
    moved -= {part.name for part in (*_beyond(left, come, _line), *_beyond(come, left, _line))}
    for name in sorted({*before, *after} - moved):
        for was, now in zip_longest(before.get(name, ()), after.get(name, ())):
            yield f"{name} {_change(was, now)}"


def told_differences(contents_dir: Path, old: str, new: str, most: int) -> str | None:
    """The first differences of two contents, and how many more; None where one's parts are not kept here."""
    before, after = kept_parts(contents_dir, old), kept_parts(contents_dir, new)
    if before is None or after is None:
        return None
    found = list(differences(before, after))
    return "; ".join([*found[:most], *([f"and {len(found) - most} more"] if len(found) > most else [])])


def printable(name: str) -> str:
    """A file's name as text that JSON and UTF-8 can hold: bytes that are no UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _change(was: Part | None, now: Part | None) -> str:
    if was is None:
        return "is new"
    if now is None:
        return "is gone"
    changed = [
        f"is {_short(is_now)}, was {_short(then)}"
        for then, is_now in zip(was.content, now.content, strict=True)
        if then != is_now
    ]
    return "; ".join(changed)


def _short(value: JSON) -> str:
    if value is None:
        return "missing"
    if isinstance(value, str) and len(value) == 64:
        return f"sha256 {value[:12]}"
    return for_person(value)


def _beyond(parts: Iterable[Part], others: Iterable[Part], key: Callable[[Part], bytes]) -> list[Part]:
    """The parts that are left where each of the others takes away one that is equal by the key."""
    left = Counter(map(key, others))
    found: list[Part] = []
    for part in parts:
        left[key(part)] -= 1
        if left[key(part)] < 0:
            found.append(part)
    return found


def _by_name(parts: Iterable[Part]) -> dict[str, list[Part]]:
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.name, []).append(part)
    return found


def _named(part: Part) -> bytes:
    return encoded(part.name) + _line(part)


def _line(part: Part) -> bytes:
    return encoded(list(part.content)) + b"\n"


def _file(contents_dir: Path, digest: str) -> Path:
    return contents_dir / f"{digest}.jsonl"
