"""Files of prompts: text, JSON lines, CSV or Parquet, a video in each line or row. Imports no torch."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import attrs

from mm_config.schema import Problem, UserError, gathering
from mm_config.specs import GenerationRequest
from mm_config.stored import from_payload, to_payload

FILES = ("image", "last_image", "video")
"""Fields of a request that name a file: from the folder of the prompts."""
_TEXTS = ("prompt", "negative_prompt", "aspect_ratio", *FILES)
"""Fields whose CSV cell is a text, even where it looks like a number."""


@attrs.frozen
class Asked:
    """What a line or row of a file asks for."""

    place: str
    """`FILE:LINE`, as errors name it."""
    number: int
    """The line, or the row of a Parquet file, from 1."""
    requests: tuple[GenerationRequest, ...]
    """One for each base seed, or one alone where the line says its own; none where it can't be read."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with it."""


def read_prompts(file: Path, shared: Mapping[str, Any], seeds: Sequence[int] = (0,)) -> tuple[Asked, ...]:
    """What a file asks for, line by line; blank lines are passed over.

    Args:
        file: `.txt` with a prompt in each line; `.jsonl` with an object, `.csv` with a row (the first names
            the fields) or `.parquet` with a row of fields of a request; `prompt` alone must be there. Files
            that it names are looked up from its folder.
        shared: Fields of what lines don't say themselves.
        seeds: Base seeds: a line that says no seed is made once with each, see `item_seed`.

    Raises:
        UserError: It can't be read, is none of these, or asks for nothing.
    """
    read = _READERS.get(file.suffix.lower())
    if read is None:
        raise UserError(f"{file}: expected {', '.join(_READERS)}, got {file.suffix or 'no suffix'}")
    payload: dict[str, Any] = to_payload(GenerationRequest(prompt="any", **shared))
    defaults = {name: value for name, value in payload["spec"].items() if name not in ("prompt", "seed")}
    try:
        asked = [
            _asked(f"{file}:{number}", number, index, said, {**payload, "spec": defaults}, file.parent, seeds)
            for index, (number, said) in enumerate(read(file))
        ]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: can't be read: {why}") from error
    if not asked:
        raise UserError(f"{file}: asks for nothing")
    return tuple(asked)


def item_seed(base: int, index: int) -> int:
    """The seed of a line that says none: 31 bits that follow from a base seed and the line's place among all.

    The first four bytes of sha256 over `BASE INDEX`, halved; no two lines of a file share their noise, and
    neither do the lines of two base seeds.
    """
    return int.from_bytes(hashlib.sha256(f"{base} {index}".encode()).digest()[:4]) >> 1


_Said = dict[str, Any] | UserError
"""The fields of a line, or what is wrong with it."""


def _asked(
    place: str,
    number: int,
    index: int,
    said: _Said,
    payload: Mapping[str, Any],
    folder: Path,
    seeds: Sequence[int],
) -> Asked:
    problems: list[Problem] = []
    requests: list[GenerationRequest] = []
    with gathering(problems):
        if isinstance(said, UserError):
            raise UserError([attrs.evolve(one, path=place) for one in said.problems])
        files = {name: str(folder / said[name]) for name in FILES if isinstance(said.get(name), str)}
        own = [{}] if "seed" in said else [{"seed": item_seed(base, index)} for base in seeds]
        for seed in own:
            fields = payload["spec"] | said | files | seed
            requests.append(from_payload({**payload, "spec": fields}, place))
    return Asked(place, number, () if problems else tuple(requests), tuple(problems))


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8-sig").splitlines()


def _text(file: Path) -> Iterator[tuple[int, _Said]]:
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            yield number, {"prompt": line.strip()}


def _json_lines(file: Path) -> Iterator[tuple[int, _Said]]:
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            yield number, _object(line)


def _object(line: str) -> _Said:
    try:
        fields = json.loads(line, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        return UserError(f"is no JSON: {error.msg}")
    except (ValueError, RecursionError) as error:
        return UserError(str(error))
    if not isinstance(fields, dict):
        return UserError('is no JSON object such as {"prompt": "a red circle moving up"}')
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("says a key twice")
    return fields


def _csv(file: Path) -> Iterator[tuple[int, _Said]]:
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = csv.reader(opened, strict=True)
        names: list[str] | None = None
        while True:
            number = rows.line_num + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, UserError(f"is no CSV: {error}")
                continue
            if not any(cell.strip() for cell in row):
                continue
            if names is None:
                names = [cell.strip() for cell in row]
                if "prompt" not in names or len(set(names)) < len(names):
                    raise UserError(f"{file}:{number}: expected distinct names of fields, prompt among them")
            elif len(row) > len(names):
                yield number, UserError(f"has {len(row)} cells for {len(names)} fields")
            else:
                pairs = zip(names, row, strict=False)
                yield number, {name: _cell(name, cell) for name, cell in pairs if cell.strip()}


def _cell(name: str, text: str) -> Any:
    """A cell's value: numbers and booleans as JSON writes them, everything else as it stands."""
    if name in _TEXTS:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()


def _parquet(file: Path) -> Iterator[tuple[int, _Said]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        rows = parquet.read_table(file).to_pylist()
    except pa.ArrowInvalid as error:
        raise UserError(f"{file}: is no Parquet file: {error}") from error
    for number, row in zip(count(1), rows, strict=False):
        yield number, {name: value for name, value in row.items() if value is not None}


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, _Said]]]] = {
    ".txt": _text,
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
