"""What a dataset is as an input: the bytes of its clips and their captions, in any order and place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mm_config.content import Input, Part, parts_input, pinned, sha256_of_files
from mm_config.schema import Problem, UserError, spec_hash, tag_of
from mm_config.specs import DatasetSpec, FolderSpec, IndexSpec, ManifestSpec, MixtureSpec, ShapesSpec
from mm_data.bad import BadClip, file_state
from mm_data.index.table import IndexedRecords
from mm_data.media import open_media
from mm_data.records import Dataset, Record, content_of
from mm_data.remote import Refused, allowed_by, states_of

CHECKED_ROWS = 100_000
"""Rows up to which the files of an index are looked at before a training, which takes seconds."""
_SHOWN = 3


def dataset_input(
    spec: DatasetSpec, dataset: Dataset, contents_dir: Path, path: str = "spec.data.dataset"
) -> Input:
    """The content of a dataset. Clips are read the first time only, and where they changed.

    Its digest knows neither the manifest's bytes, further keys and order nor where the clips lie. What it
    knows of a clip is the sha256 of its file, its caption or captions, and its cut. An index knows all of
    that: up to `CHECKED_ROWS` rows it is held to what lies there now, and beyond it is taken at its word.
    Objects of a storage were read when they were indexed; a storage that says of one the version that it
    said then is believed, and the input is marked `declared`.

    Args:
        spec: Which data.
        dataset: What `prepare` returned.
        contents_dir: Where the digests of clips are kept, `RunOptions.contents_dir`.
        path: Canonical path of the spec.

    Raises:
        UserError: The spec says which digest it must be, and it is another; or clips of an index have changed
            since it was made.
    """
    name, revision = _name(spec)
    details = {"path": str(dataset.root), "clips": len(dataset.records), "order_key": dataset.order_key}
    known = {"kind": tag_of(spec), "name": name, "revision": revision}
    if isinstance(spec, MixtureSpec):
        found = [
            dataset_input(one.dataset, part, contents_dir, f"{path}.parts.{number}.dataset")
            for number, (one, part) in enumerate(zip(spec.parts, dataset.parts, strict=True))
        ]
        in_order = json.dumps([one.details["in_order"] for one in found])
        details["in_order"] = hashlib.sha256(in_order.encode()).hexdigest()
        parts = [Part(f"part {number}", (one.digest, number)) for number, one in enumerate(found)]
        return parts_input(parts, contents_dir, details=details, **known)
    if isinstance(records := dataset.records, IndexedRecords):
        details["in_order"] = records.head.order_key
        found = _of_index(records, allowed_by(spec), contents_dir, details=details, **known)
        return pinned(found, getattr(spec, "digest", None), path)
    digests = sha256_of_files(record.path for record in dataset.records)
    parts = [
        Part(
            record.path.relative_to(dataset.root).as_posix(),
            content_of(digest, record.captions or (record.caption,), record.cut, record.crop),
        )
        for record, digest in zip(dataset.records, digests, strict=True)
    ]
    contents = json.dumps([part.content for part in parts])
    details["in_order"] = hashlib.sha256(contents.encode()).hexdigest()
    found = parts_input(parts, contents_dir, details=details, **known)
    return pinned(found, getattr(spec, "digest", None), path)


def _of_index(records: IndexedRecords, remote: Sequence[str], contents_dir: Path, **known: Any) -> Input:
    """The content of an index. Raises UserError where its clips, or its own rows, are not what it says."""
    known["declared"] = any(map(_is_remote, records.places.column("path").to_pylist()))
    if len(records) > CHECKED_ROWS:
        return Input(digest=records.head.digest, **known)
    if changed := changed_files(records, remote):
        more = f", and {len(changed) - _SHOWN:,} more" if len(changed) > _SHOWN else ""
        message = f"changed since they were indexed: {', '.join(changed[:_SHOWN])}{more}"
        raise UserError(Problem("spec.data.dataset", f"{message}; `mm data index` tells what is new in them"))
    found = parts_input(records.parts(), contents_dir, **known)
    if found.digest != records.head.digest:
        message = f"says that its digest is {records.head.digest}, but that of its rows is {found.digest}"
        raise UserError(Problem(str(records.folder), message))
    return found


def changed_files(records: IndexedRecords, remote: Sequence[str] = ()) -> list[str]:
    """Names of clips whose files are there and are others than the index measured.

    Files whose size and times of change are as they were then are not read; of the others digests are
    remembered. A storage is asked for the size and the version (ETag) of its objects, and those that it has
    another version of are read.

    Args:
        records: The index.
        remote: What may be read over the network, as `mm_data.remote` takes it.

    Raises:
        UserError: The storage can't be asked.
    """
    records.require_whole()
    states, digests = (records.media.column(name).to_pylist() for name in ("state", "sha256"))
    places, place_of = records.places.column("path").to_pylist(), records.columns("place").tolist()
    media, rows = np.unique(records.columns("media"), return_index=True)
    objects = _asked_for(filter(_is_remote, places), remote)
    now = {
        place: objects[place] if _is_remote(place) else file_state(records.root / place) for place in places
    }
    suspects = [
        (row, records[row], digests[number])
        for number, row in zip(media.tolist(), rows.tolist(), strict=True)
        if now[places[place_of[row]]] not in ("", states[number])
    ]
    whole = [record.path for _, record, _ in suspects if record.part is None and record.url is None]
    found = dict(zip(whole, sha256_of_files(whole), strict=True))
    return [
        records.name_of(row)
        for row, record, digest in suspects
        if digest != (found.get(record.path) or _sha256_of(record, remote))
    ]


def _sha256_of(record: Record, remote: Sequence[str]) -> str:
    """The digest of a part of a file, or of an object or a part of it. Raises UserError."""
    digest = hashlib.sha256()
    with (
        _said(record.url or str(record.path)),
        open_media(record.path, record.part, record.url, remote) as file,
    ):
        while content := file.read(2**20):
            digest.update(content)
    return digest.hexdigest()


def _asked_for(urls: Iterable[str], remote: Sequence[str]) -> dict[str, str]:
    """What a storage says of its objects now. Raises UserError where it can't be asked."""
    with _said("spec.data.dataset"):
        return states_of(urls, remote)


@contextmanager
def _said(path: str) -> Generator[None]:
    """Makes the failures of reading over a network a user's."""
    try:
        yield
    except (OSError, Refused, BadClip) as error:
        raise UserError(Problem(path, f"can't be compared with what was indexed: {error}")) from error


def _is_remote(place: str) -> bool:
    return "://" in place


def clip_digests(dataset: Dataset) -> Sequence[str | None]:
    """sha256 of each clip's file or of its part of a shard, in the order of the dataset.

    An index tells them, wherever its clips are; without one, None stands for a clip that can't be read.
    """
    if dataset.parts:
        return [digest for part in dataset.parts for digest in clip_digests(part)]
    if isinstance(records := dataset.records, IndexedRecords):
        records.require_whole()
        digests = records.media.column("sha256").to_pylist()
        return [digests[media] for media in records.columns("media").tolist()]
    return sha256_of_files(record.path for record in dataset.records)


def _name(spec: DatasetSpec) -> tuple[str | None, str | None]:
    """Name and revision. Rendered clips are named by what is rendered: encoders may change under it."""
    if isinstance(spec, ManifestSpec | FolderSpec):
        return spec.name, spec.revision
    if isinstance(spec, IndexSpec):
        return spec.name, None
    if isinstance(spec, ShapesSpec):
        return f"shapes {spec_hash(spec)[:12]}", str(spec.revision)
    return None, None
