"""An index on disk: Arrow IPC files of one batch each, uncompressed, so that opening one reads no row.

What a plan looks through, `rows.arrow`, holds numbers alone and lies apart from captions: 66 bytes a row.
Every row points at its file in `media.arrow`, at that file's path in `places.arrow`, and has its captions at
the same place in `texts.arrow`. `index.json` says what it all is.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, overload

import attrs
import numpy as np

from mm_config.content import Part
from mm_config.durable import outside, read_bytes, require_regular, sync
from mm_config.schema import Problem, UserError
from mm_data.index.cells import cell
from mm_data.records import Measured, Record, content_of

if TYPE_CHECKING:
    import pyarrow as pa

HEAD, STATS, VERSION = "index.json", "stats.json", 1
ROWS = {
    "media": np.uint32,
    "place": np.uint32,
    "offset": np.int64,
    "length": np.int64,
    "height": np.uint32,
    "width": np.uint32,
    "frames": np.uint32,
    "fps_num": np.int64,
    "fps_den": np.int64,
    "cut_start": np.uint32,
    "cut_end": np.uint32,
    "aesthetic": np.float32,
    "flags": np.uint16,
}
"""Columns of `rows.arrow`. `height` and `width` are those of a shown frame, or of its crop; `frames` are
those of the cut; a rate of 0/1 is an image's; `offset` and `length` are bytes in a shard, 0 of a file of its
own; `place` is equal in all rows of a file or shard; an unknown `aesthetic` is no number."""


TEXTS = ("name", "captions", "crop")
"""Columns of `texts.arrow`."""


class Flag(enum.IntFlag):
    """Bits of the column `flags`."""

    IMAGE = 1
    """A picture, which is a clip of one frame."""
    VARIABLE = 2
    """Frames are not equally far apart."""
    CUT = 4
    """The row is a part of its file, from `cut_start` to before `cut_end`."""
    CROP = 8
    """Only a part of its frames is taken, `crop` in `texts.arrow`."""
    PART = 16
    """It lies in a shard, at `offset`."""


@attrs.frozen
class Head:
    """What `index.json` says."""

    name: str
    """Logical name."""
    digest: str
    """The content, 64 hex digits: of the sorted rows of file digest, captions and cut."""
    order_key: str
    """What the order of samples follows from: sha256 of the rows in their order."""
    root: str
    """The folder that relative paths start from; relative to the index's own where that lies in it."""
    rows: int
    """Samples."""
    details: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """What helps to understand it: the source, how pieces were made, versions of tools."""


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Writes columns of one length, numpy arrays or Arrow's, as one batch; on the disk when this returns.

    Raises:
        OSError: It can't be written.
    """
    import pyarrow as pa

    arrays = {name: pa.array(column) for name, column in columns.items()}
    batch = pa.record_batch(arrays)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    sync(path)


def read_table(path: Path) -> pa.RecordBatch:
    """The batch of a file, mapped into memory: no row is read.

    Raises:
        UserError: The file is missing or damaged.
    """
    import pyarrow as pa

    try:
        require_regular(path)
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
            batch = file.get_batch(0)
            batch.validate()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(Problem(str(path), f"can't be read: {error}"[:300])) from error
    return batch


def write_head(folder: Path, head: Head) -> None:
    """Writes `index.json`, on the disk when this returns."""
    content = {"kind": "mm-index", "v": VERSION, **attrs.asdict(head)}
    (folder / HEAD).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sync(folder / HEAD)


def read_head(folder: Path) -> Head:
    """What an index is.

    Raises:
        UserError: There is none, or one that this version can't read.
    """
    path = folder / HEAD
    try:
        content = json.loads(read_bytes(path))
        version = content.pop("v")
        if content.pop("kind") != "mm-index" or version != VERSION:
            raise UserError(Problem(str(path), f"is an index of version {version!r}, expected {VERSION}"))
        if not isinstance(content["root"], str) or type(content["rows"]) is not int:
            raise ValueError("root must be a text and rows a number")
        return Head(**content)
    except FileNotFoundError as error:
        message = f"holds no {HEAD}; `mm data index SRC {folder}` writes one"
        raise UserError(Problem(str(folder), message)) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(Problem(str(path), f"can't be read: {error}"[:300])) from error


def read_stats(folder: Path) -> dict[str, Any]:
    """What was counted when an index was made; nothing where that file is gone."""
    try:
        found = json.loads(read_bytes(folder / STATS))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class IndexedRecords(Sequence[Record]):
    """The samples of an index, each read when it is asked for."""

    def __init__(self, folder: Path, *, root: Path | None = None, roots: Sequence[Path] = ()) -> None:
        """Opens an index, which takes the same time whatever its length.

        Args:
            folder: The index.
            root: Where relative paths start from, if its data lies elsewhere now than when it was made.
            roots: Further folders that absolute paths may lead into, resolved.

        Raises:
            UserError: There is no index, or it is damaged.
        """
        self.folder = folder
        self.head = read_head(folder)
        self.root = (root or folder / self.head.root).resolve()
        self._roots = (self.root, *roots)
        self._rows = self._table("rows", ROWS, self.head.rows)
        kinds = {field.name: field.type.to_pandas_dtype() for field in self._rows.schema}
        if kinds != ROWS or any(column.null_count for column in self._rows.columns):
            raise UserError(Problem(str(folder / "rows.arrow"), "holds other columns than those of an index"))

    def _table(self, name: str, columns: Iterable[str], rows: int | None = None) -> pa.RecordBatch:
        path = self.folder / f"{name}.arrow"
        batch = read_table(path)
        if not set(columns) <= set(batch.schema.names) or rows not in (None, batch.num_rows):
            raise UserError(Problem(str(path), f"doesn't belong to its {HEAD}"))
        return batch

    def require_whole(self) -> None:
        """Looks through all rows. Raises UserError where tables are damaged or don't fit each other."""
        texts = self.texts.select(["name", "captions"])
        self._table("media", ("sha256", "state"))
        for name, table in (("media", self.media), ("place", self.places), ("text", texts)):
            try:
                table.validate(full=True)
                if any(column.null_count for column in table.columns):
                    raise ValueError("a value is missing")
                if name in ROWS and self.columns(name).max(initial=0) >= len(table):
                    raise ValueError("a row points behind its end")
            except ValueError as error:
                message = f"the table of each {name} is damaged: {error}"[:300]
                raise UserError(Problem(str(self.folder), message)) from error

    def columns(self, name: str) -> np.ndarray:
        """A column of `ROWS`, `[rows]`: a view of the file that can't be written."""
        return self._rows.column(name).to_numpy(zero_copy_only=True)

    @cached_property
    def media(self) -> pa.RecordBatch:
        """What was measured, a row for each file or part of a shard; `media` of a row is its place here."""
        return self._table("media", ("height", "width"))

    @cached_property
    def texts(self) -> pa.RecordBatch:
        """Name, captions and crop of each row."""
        return self._table("texts", TEXTS, len(self))

    @cached_property
    def places(self) -> pa.RecordBatch:
        """Paths and urls of files and shards; `place` of a row is its place here."""
        return self._table("places", ("path",))

    @cached_property
    def _views(self) -> dict[str, np.ndarray]:
        return {name: self.columns(name) for name in ROWS}

    def __len__(self) -> int:
        return self.head.rows

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self._record(one) for one in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self._record(index % len(self))

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, range(len(self)))

    def name_of(self, index: int) -> str:
        """What a person calls a row's clip."""
        return cell(self.texts.column("name"), index)

    def parts(self) -> list[Part]:
        """What it holds, as the content of a dataset has it, in the order of rows."""
        self.require_whole()
        digests = self.media.column("sha256").to_pylist()
        names, captions, crops = (self.texts.column(name).to_pylist() for name in TEXTS)
        numbers = (self.columns(name).tolist() for name in ("media", "flags", "cut_start", "cut_end"))
        return [
            Part(name, content_of(digests[media], texts, (first, end) if flags & Flag.CUT else None, crop))
            for name, texts, crop, media, flags, first, end in zip(
                names, captions, crops, *numbers, strict=True
            )
        ]

    def _record(self, index: int) -> Record:
        try:
            return self._read(index)
        except (IndexError, ValueError, TypeError, ZeroDivisionError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(Problem(str(self.folder), f"row {index} is damaged: {error}"[:300])) from error

    def _read(self, index: int) -> Record:
        row = {name: view[index].item() for name, view in self._views.items()}
        captions = tuple(map(str, cell(self.texts.column("captions"), index)))
        place: str = cell(self.places.column("path"), row["place"])
        url = place if "://" in place else None
        flags = Flag(row["flags"])
        crop = cell(self.texts.column("crop"), index) if Flag.CROP in flags else None
        sizes = [cell(self.media.column(name), row["media"]) for name in ("height", "width")]
        return Record(
            path=Path(place) if url else self._inside(place, index),
            caption=captions[0],
            captions=captions if len(captions) > 1 else (),
            cut=(row["cut_start"], row["cut_end"]) if Flag.CUT in flags else None,
            crop=None if crop is None else (crop[0], crop[1], crop[2], crop[3]),
            part=(row["offset"], row["length"]) if Flag.PART in flags else None,
            url=url,
            measured=Measured(row["frames"], Fraction(row["fps_num"], row["fps_den"]), *sizes),
        )

    def _inside(self, place: str, index: int) -> Path:
        """The file of a place. Raises UserError where it leads out of every allowed folder."""
        path = PurePosixPath(place)
        root = next((root for root in self._roots if path.is_relative_to(root)), self.root)
        name = str(path.relative_to(root) if path.is_relative_to(root) else path)
        if problem := outside(name, root):
            message = f"row {index} names {place[:200]!r}: {problem}, and locations.yaml names none"
            raise UserError(Problem(str(self.folder), message))
        return root / name
