"""Uncompressed tar shards as WebDataset has them: nothing is extracted, clips are read where they lie.

The members of one sample follow each other and have one name up to the first point behind the last slash, as
https://github.com/webdataset/webdataset says; what follows the point is the member's role.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import attrs

from mm_config.schema import Problem, UserError
from mm_data.index.listed import LeftOut, Listed
from mm_data.index.sources.files import Files, place_of
from mm_data.index.sources.folders import MEDIA, MOST_OF_A_TEXT
from mm_data.index.sources.rows import CAPTIONS, KNOWN, Columns, Row, entry
from mm_data.manifest import capped

_NAME = re.compile(r"((?:.*/)?[^/.][^/.]*)\.([^/]*)")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_TEXTS = ("txt", "caption", "json")
NOT_REGULAR = "a member that is no regular file"
SEVERAL = "its sample has several clips"
NO_CLIP = "its sample has no clip"


@attrs.frozen
class _Member:
    name: str
    """As the shard has it."""
    key: str
    """What it shares with the other members of its sample."""
    role: str
    """What follows the key's point, in small letters."""
    offset: int
    """Of its bytes in the shard."""
    size: int
    """In bytes."""
    text: bytes = b""
    """Its bytes, where its role is a caption's."""


def listed_shards(
    files: Files, names: list[str], path: str | None, caption: str | None
) -> Iterator[Listed | LeftOut]:
    """The samples of shards, in the order in which they lie there.

    Args:
        files: The folder of the shards.
        names: Their names.
        path: The role of the member that is the clip, such as `mp4`; None takes the only one that can be.
        caption: The role of the member that is the caption, or the key of a `json` member that holds it.

    Raises:
        UserError: A shard is missing, compressed or damaged, or members are wrong: all that are.
    """
    problems: list[Problem] = []
    for name in names:
        where = place_of(files, name)
        try:
            with files.open(name) as file:
                for found in _samples(file, name, where):
                    yield from _sample(found, files, name, where, path, caption, problems)
        except (ValueError, tarfile.TarError) as error:
            problems.append(Problem(where, str(error)[:200]))
        except (OverflowError, RecursionError, MemoryError) as error:  # Of sizes that a header claims.
            problems.append(Problem(where, f"has a header that can't be read: {error}"[:200]))
        except OSError as error:
            problems.append(Problem(where, f"can't be read: {error.strerror or error}"))
    if problems:
        raise UserError(capped(problems, files.root))


def _samples(file: BinaryIO, name: str, where: str) -> Iterator[list[_Member] | LeftOut]:
    """Members that follow each other and belong together."""
    if file.read(6).startswith(_COMPRESSED):
        raise ValueError("is compressed; clips are read where they lie, so shards are plain tar")
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    group: list[_Member] = []
    with tarfile.open(fileobj=file, mode="r:") as tar:
        count = 0
        while (member := tar.next()) is not None:
            vars(tar)["members"] = []  # It keeps all that it has seen.
            count += 1
            match = _NAME.fullmatch(member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse() or match is None:
                yield LeftOut(f"{name}/{member.name}", where, NOT_REGULAR if match else NO_CLIP)
                continue
            if member.offset_data + member.size > size:
                raise ValueError(f"is cut off in member {count}, {member.name[:200]}")
            key, role = match[1], match[2].lower()
            if group and group[0].key != key:
                yield group
                group = []
            group.append(
                _Member(member.name, key, role, member.offset_data, member.size, _text(tar, member, role))
            )
        # tarfile takes a damaged header for the end.
        file.seek(tar.offset)
        if (end := file.read(512)) != bytes(512):
            raise ValueError(f"is {'damaged' if end else 'cut off'} behind member {count}")
    if group:
        yield group


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo, role: str) -> bytes:
    if role not in _TEXTS:
        return b""
    if member.size > MOST_OF_A_TEXT:
        raise ValueError(f"{member.name[:200]} has more than {MOST_OF_A_TEXT:,} bytes")
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _sample(
    found: list[_Member] | LeftOut,
    files: Files,
    shard: str,
    where: str,
    path: str | None,
    caption: str | None,
    problems: list[Problem],
) -> Iterator[Listed | LeftOut]:
    if isinstance(found, LeftOut):
        yield found
        return
    wanted = MEDIA if path is None else (f".{path}",)
    clips = [one for one in found if f".{one.role.rpartition('.')[2]}" in wanted]
    name = f"{shard}/{(clips or found)[0].name}"
    if len(clips) != 1:
        roles = ", ".join(one.role for one in clips)
        yield LeftOut(name, where, f"{SEVERAL}: {roles}; name one by --path-column" if clips else NO_CLIP)
        return
    wrong: list[str] = []
    values = _values(found, caption, wrong)
    row = Row(where, {**values, "path": shard})
    sample = entry(row, Columns("path", "caption"), files, wrong)
    problems += [Problem(f"{where}/{found[0].key}", message) for message in wrong]
    if isinstance(sample, Listed):
        yield attrs.evolve(sample, name=name, part=(clips[0].offset, clips[0].size))
    elif sample is not None:
        yield attrs.evolve(sample, name=name)


def _values(members: list[_Member], caption: str | None, wrong: list[str]) -> Mapping[str, Any]:
    """What the texts of a sample say: the caption, and what its `json` has beside it."""
    texts: dict[str, str] = {}
    for one in members:
        if one.role in _TEXTS:
            try:
                texts[one.role] = one.text.decode("utf-8-sig")
            except UnicodeDecodeError:
                wrong.append(f"{one.role} is not UTF-8")
    values: dict[str, Any] = {}
    if "json" in texts:
        try:
            values = json.loads(texts["json"])
        except (ValueError, RecursionError) as error:
            wrong.append(f"json can't be read: {error}"[:200])
        if not isinstance(values, dict):
            wrong.append("json must hold an object")
            values = {}
    there = [key for key in CAPTIONS if key in values]
    if caption is not None:
        found = texts.get(caption, values.get(caption))
    elif "txt" in texts or "caption" in texts:
        found = texts.get("txt", texts.get("caption"))
    elif len(there) > 1:
        wrong.append(f"{' and '.join(there)} could both be meant; name the key by --caption-column")
        found = None
    else:
        found = values[there[0]] if there else None
    return {"caption": found, **{key: values[key] for key in KNOWN if key in values}}
