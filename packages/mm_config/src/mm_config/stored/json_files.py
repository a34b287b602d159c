"""JSON objects in files: written whole, read with one line on what is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mm_config.durable.reading import read_bytes
from mm_config.durable.writing import write_bytes
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.types import in_error, is_dict, is_list

MAX_DEPTH = 64
"""Levels of lists and objects."""


def read_json(path: Path, shape: Any = None) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Args:
        path: The file.
        shape: What those who read it rely on, as `misfits` takes it.

    Raises:
        UserError: The file can't be read, holds no JSON object, or one of another shape.
    """
    try:
        content = json.loads(read_bytes(path).decode(), parse_constant=_no_number, parse_float=_finite)
    except OSError as error:
        raise UserError(Problem(str(path), f"can't be read: {error.strerror}")) from error
    except (ValueError, RecursionError) as error:
        raise UserError(Problem(str(path), f"is no JSON: {error}")) from error
    if not is_dict(content):
        raise UserError(Problem(str(path), f"holds no JSON object but a {type(content).__name__}"))
    if _depth(content) > MAX_DEPTH:
        raise UserError(Problem(str(path), f"is nested deeper than {MAX_DEPTH} levels"))
    if wrong := next(misfits(content, {} if shape is None else shape), None):
        raise UserError(Problem(str(path), wrong))
    return content


def misfits(value: Any, shape: Any, at: str = "") -> Iterator[str]:
    """Where plain data has not a shape.

    Args:
        value: The data.
        shape: A type or a union of types; `[shape]` of a list's items; `{key: shape}` of an object's keys
            where they are there, the key "" standing for all that are not named.
        at: Where the data stands.
    """
    if not isinstance(value, type(shape) if is_dict(shape) or is_list(shape) else shape):
        yield f"{at or 'it'} is {in_error(value)}, which is not what mm writes there"
    elif is_list(value) and is_list(shape):
        for index, item in enumerate(value):
            yield from misfits(item, shape[0], f"{at}.{index}".lstrip("."))
    elif is_dict(value) and is_dict(shape):
        for name, item in value.items():
            if (inside := shape.get(name, shape.get(""))) is not None:
                yield from misfits(item, inside, f"{at}.{name}".lstrip("."))


def _depth(content: Any) -> int:
    level, depth = [content], 0
    while level:
        parts = [one.values() if is_dict(one) else one for one in level if is_dict(one) or is_list(one)]
        level, depth = [inner for part in parts for inner in part], depth + 1
    return depth


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _no_number(text)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file that is either whole or absent, also after a power cut.

    Raises:
        ValueError: A number is not finite; JSON has no such numbers.
    """
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    # A file name in no encoding, such as in an argv, becomes a JSON escape.
    write_bytes(path, text.encode(errors="backslashreplace"))
