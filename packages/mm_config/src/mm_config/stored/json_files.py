"""JSON objects in files: written whole, read with one line on what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mm_config.durable.reading import MAX_BYTES, read_bytes
from mm_config.durable.writing import write_bytes
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.types import is_dict


def read_json(path: Path, limit: int = MAX_BYTES) -> dict[str, Any]:
    """Reads what `write_json` wrote, of at most `limit` bytes.

    Raises:
        UserError: The file can't be read, or holds no JSON object.
    """
    try:
        content = json.loads(read_bytes(path, limit).decode())
    except OSError as error:
        raise UserError(Problem(str(path), f"can't be read: {error.strerror}")) from error
    except RecursionError as error:
        raise UserError(Problem(str(path), "is nested too deep to be read")) from error
    except ValueError as error:
        raise UserError(Problem(str(path), f"is no JSON: {error}")) from error
    if not is_dict(content):
        raise UserError(Problem(str(path), f"holds no JSON object but a {type(content).__name__}"))
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file that is either whole or absent, also after a power cut.

    Raises:
        ValueError: A number is not finite; JSON has no such numbers.
    """
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    # A file name in no encoding, such as in an argv, becomes a JSON escape.
    write_bytes(path, text.encode(errors="backslashreplace"))
