"""Tables of clips: JSON lists, JSON lines, CSV, TSV, Parquet and Arrow."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO

from mm_config.rules import counted
from mm_config.schema import Problem, UserError
from mm_data.index.sources.files import Files, place_of
from mm_data.index.sources.rows import SPELLINGS, Row
from mm_data.manifest import capped

MOST_BYTES = 2**32
"""Of a table that is read whole."""
MOST_OF_A_LINE = 2**24
_BRACES = re.compile(r'"resolution"\s*:\s*(\{\s*\d+\s*,\s*\d+\s*\})')
_SPACE = re.compile(r"[ \t\r\n]*")


def rows_of(files: Files, name: str) -> Iterator[Row]:
    """The rows of a table, in their order.

    Raises:
        UserError: It can't be read, or is not what its name says; all wrong lines are named.
    """
    where = place_of(files, name)
    read = READERS.get(suffix_of(name), _json_lines)  # musubi-tuner's have any name.
    try:
        with files.open(name) as file:
            yield from read(file, where)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(Problem(where, str(error)[:300])) from error
    except OSError as error:
        raise UserError(Problem(where, f"can't be read: {error.strerror or error}")) from error


def suffix_of(name: str) -> str:
    """The ending of a file's name in small letters, with its point."""
    point = name.rfind(".")
    return name[point:].lower() if point > name.rfind("/") + 1 else ""


def _json_list(file: BinaryIO, where: str) -> Iterator[Row]:
    """The objects of one list. Each is read for itself, so that its line is known."""
    text = text_of(file, where)
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    at = _after_space(text, 0)
    if text[at : at + 1] != "[":
        raise UserError(Problem(where, f"expected a JSON list of objects, got {text[at : at + 40]!r}"))
    at, counted, line = _after_space(text, at + 1), 0, 1
    problems: list[Problem] = []
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        place = f"{where}:{line}"
        try:
            values, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise UserError(_not_json(text, where, place, error)) from error
        if isinstance(values, dict):
            yield Row(place, values)
        else:
            problems.append(Problem(place, f"expected an object, got {json.dumps(values)[:60]}"))
        at = _after_space(text, at)
        if text[at : at + 1] == ",":
            at = _after_space(text, at + 1)
        elif text[at : at + 1] != "]":
            line += text.count("\n", counted, at)
            got = repr(text[at : at + 20]) if at < len(text) else "the end of the file"
            raise UserError(Problem(f"{where}:{line}", f"expected , or ] between entries, got {got}"))
    if text[_after_space(text, at + 1) :]:
        problems.append(Problem(where, "something follows the list"))
    if problems:
        raise UserError(capped(problems, where))


def _after_space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # pyright: ignore[reportOptionalMemberAccess]


def _not_json(text: str, where: str, place: str, error: Exception) -> list[Problem]:
    """All resolutions without names, which MindSpeed-MM's guides show; else what the parser says."""
    problems = [
        Problem(
            f"{where}:{text.count(chr(10), 0, found.start(1)) + 1}",
            f'"resolution": {found[1]} is not JSON; write {SPELLINGS}',
        )
        for found in _BRACES.finditer(text)
    ]
    if problems:
        return capped(problems, where)
    if isinstance(error, json.JSONDecodeError):
        return [Problem(f"{where}:{error.lineno}", f"not JSON: {error.msg} at column {error.colno}")]
    return [Problem(place, f"not JSON that can be read: {error}")]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return entry


def _json_lines(file: BinaryIO, where: str) -> Iterator[Row]:
    problems: list[Problem] = []
    for number, line in enumerate(iter(partial(file.readline, MOST_OF_A_LINE + 1), b""), 1):
        place = f"{where}:{number}"
        if len(line) > MOST_OF_A_LINE:
            raise UserError(Problem(place, f"a line has more than {MOST_OF_A_LINE // 2**20} MiB"))
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            values = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            text = line.decode("utf-8", "replace")
            problems += [Problem(place, one.message) for one in _not_json(text, where, place, error)]
            continue
        if isinstance(values, dict):
            yield Row(place, values)
        else:
            problems.append(Problem(place, f"expected an object, got {json.dumps(values)[:60]}"))
    if problems:
        raise UserError(capped(problems, where))


def _separated(file: BinaryIO, where: str, separator: str) -> Iterator[Row]:
    text = io.StringIO(text_of(file, where), newline="")
    csv.field_size_limit(MOST_OF_A_LINE)
    head = text.readline()
    text.seek(0)
    if separator == "," and "," not in head and ";" in head:
        separator = ";"
    reader, line = csv.reader(text, delimiter=separator, strict=True), 1
    problems: list[Problem] = []
    try:
        header = next(reader, None)
        if header is None:
            raise UserError(Problem(f"{where}:1", "the file is empty"))
        if not header or len(set(header)) < len(header):
            raise UserError(Problem(f"{where}:1", f"expected names of columns, each once, got {header}"))
        line = reader.line_num + 1
        for cells in reader:
            place, line = f"{where}:{line}", reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                cells_here = counted(len(cells), "cell")
                problems.append(Problem(place, f"{cells_here}, and the header has {len(header)}"))
                continue
            yield Row(place, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        problems.append(Problem(f"{where}:{line}", f"not {'TSV' if separator == chr(9) else 'CSV'}: {error}"))
    if problems:
        raise UserError(capped(problems, where))


def text_of(file: BinaryIO, where: str, most: int = MOST_BYTES) -> str:
    """The whole text of a file, UTF-8 with or without a byte order mark.

    Raises:
        UserError: It is another encoding, or too long.
    """
    found = file.read(most + 1)
    if len(found) > most:
        raise UserError(Problem(where, f"has more than {most:,} bytes"))
    if found.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(Problem(where, "is UTF-16; save it as UTF-8"))
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = found.count(b"\n", 0, error.start) + 1
        raise UserError(Problem(f"{where}:{line}", f"not UTF-8: {error.reason}; save it as UTF-8")) from error


def _parquet(file: BinaryIO, where: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        batches = pq.ParquetFile(file).iter_batches(batch_size=4096)
        yield from _arrow_rows(batches, where)
    except (pa.ArrowException, MemoryError) as error:
        raise ValueError(f"not Parquet that can be read: {error}") from error


def _arrow(file: BinaryIO, where: str) -> Iterator[Row]:
    """What `datasets` saves on disk: an Arrow stream."""
    import pyarrow as pa

    try:
        yield from _arrow_rows(pa.ipc.open_stream(file), where)
    except (pa.ArrowException, MemoryError) as error:
        raise ValueError(f"not Arrow that can be read: {error}") from error


def _arrow_rows(batches: Any, where: str) -> Iterator[Row]:
    number = 0
    for batch in batches:
        batch.validate(full=True)  # Damaged offsets would be followed out of the file's memory.
        names = [field.name for field in batch.schema if not _is_binary(field.type)]
        for values in batch.select(names).to_pylist():
            number += 1
            yield Row(f"{where}:{number}", values)


def _is_binary(kind: Any) -> bool:
    """Whether a column holds bytes, as those with pictures inside do."""
    import pyarrow as pa

    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return binary or (pa.types.is_struct(kind) and any(_is_binary(field.type) for field in kind))


READERS: dict[str, Callable[[BinaryIO, str], Iterator[Row]]] = {
    ".json": _json_list,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": partial(_separated, separator=","),
    ".tsv": partial(_separated, separator="\t"),
    ".parquet": _parquet,
    ".arrow": _arrow,
}
"""What reads a table, by its name's ending."""
