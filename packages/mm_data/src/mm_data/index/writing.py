"""Samples into the files of an index."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from mm_config.content import Part, digest_of_parts
from mm_config.durable import sync
from mm_data.index.measuring import Media
from mm_data.index.samples import Sample
from mm_data.index.table import ROWS, Flag, Head, write_head, write_table


def parts_of(samples: Iterable[Sample]) -> list[Part]:
    """What an index holds, as the content of a dataset has it, in the order of rows."""
    return [Part(sample.listed.name, sample.content) for sample in samples]


def head_of(
    name: str, parts: Sequence[Part], *, root: Path, folder: Path, details: Mapping[str, Any]
) -> Head:
    """What is known of an index: its digest knows no order, its order key knows no paths.

    Args:
        name: Logical name.
        parts: Of all rows.
        root: What relative paths start from.
        folder: Where the index is to lie.
        details: What else `index.json` says.
    """
    within = folder.is_relative_to(root)
    contents = json.dumps([part.content for part in parts])
    return Head(
        name=name,
        digest=digest_of_parts(parts),
        order_key=hashlib.sha256(contents.encode()).hexdigest(),
        root=os.path.relpath(root, folder) if within else str(root),
        rows=len(parts),
        details=details,
    )


def write_index(folder: Path, head: Head, samples: Sequence[Sample], root: Path) -> None:
    """Writes the tables of an index, and its head last; all on the disk when this returns.

    Args:
        folder: An empty one.
        head: What it is.
        samples: Its rows, at least one.
        root: What paths are relative to, where a file lies in it.
    """
    medias = list(
        dict.fromkeys((sample.media, _file(sample, root), sample.listed.part) for sample in samples)
    )
    place_of = {place: number for number, place in enumerate(dict.fromkeys(place for _, place, _ in medias))}
    media_of = {media: number for number, media in enumerate(medias)}
    rows = [
        (media_of[sample.media, place, sample.listed.part], place_of[place], *_row(sample))
        for sample in samples
        for place in [_file(sample, root)]
    ]
    columns = zip(ROWS.items(), zip(*rows, strict=True), strict=True)
    write_table(folder / "rows.arrow", {name: np.array(values, kind) for (name, kind), values in columns})
    write_table(folder / "media.arrow", _media_columns([media for media, _, _ in medias]))
    write_table(folder / "places.arrow", {"path": list(place_of)})
    texts = {
        "name": [sample.listed.name for sample in samples],
        "captions": [sample.listed.captions for sample in samples],
        "crop": [sample.listed.crop for sample in samples],
    }
    write_table(folder / "texts.arrow", texts)
    write_head(folder, head)


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Writes values of attrs classes as JSON lines, on the disk when this returns."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(attrs.asdict(row)) + "\n" for row in rows)
    sync(path)


def _file(sample: Sample, root: Path) -> str:
    """A file as the index names it: relative to the root where it lies in it."""
    if sample.listed.url:
        return sample.listed.url
    path = sample.listed.path
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _row(sample: Sample) -> tuple[float, ...]:
    """The values of a row, after its file's places, in the order of `ROWS`."""
    listed, media = sample.listed, sample.media
    flags = (Flag.IMAGE if media.is_image else 0) | (Flag.VARIABLE if media.variable else 0)
    flags |= (Flag.CUT if sample.cut else 0) | (Flag.CROP if listed.crop else 0)
    flags |= Flag.PART if listed.part else 0
    score = listed.declared.aesthetic
    rate = (media.fps.numerator, media.fps.denominator)
    place = listed.part or (0, 0)
    cut = sample.cut or (0, 0)
    return (*place, *sample.size, sample.num_frames, *rate, *cut, np.nan if score is None else score, flags)


def _media_columns(medias: Sequence[Media]) -> dict[str, Any]:
    """What was measured, by column; seconds as a fraction."""
    names = [field.name for field in attrs.fields(Media) if field.name != "seconds"]
    columns = {name: [getattr(media, name) for media in medias] for name in names}
    columns["seconds_num"] = [media.seconds.numerator for media in medias]
    columns["seconds_den"] = [media.seconds.denominator for media in medias]
    return columns
