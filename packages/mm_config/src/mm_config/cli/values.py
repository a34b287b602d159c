"""How values are written for people: in the notation that the command line reads back."""

from __future__ import annotations

import enum
import shlex
from typing import Any, cast

from mm_config.files import to_payload
from mm_config.schema import is_spec, tag_of

MANY = 4
"""More items than this are abbreviated where space is short."""


def shown(value: Any) -> str:
    """A value as it would be given after its flag; a spec by its wire tag."""
    if isinstance(value, tuple):
        return " ".join(shown(item) for item in cast("tuple[Any, ...]", value)) or "(none)"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if is_spec(value):
        return f"<{tag_of(value)}>"
    return shlex.quote(value) if isinstance(value, str) else str(value)


def brief(value: Any) -> str:
    """As `shown`, but a long tuple by its first items and its length."""
    if isinstance(value, tuple):
        items = cast("tuple[Any, ...]", value)
        if len(items) > MANY:
            return f"{shown(items[:2])} ... ({len(items)} in all)"
    return shown(value)


def plain(value: Any) -> Any:
    """A value as JSON holds it; a spec as its payload."""
    if isinstance(value, tuple):
        return [plain(item) for item in cast("tuple[Any, ...]", value)]
    if isinstance(value, enum.Enum):
        return value.value
    return to_payload(value) if is_spec(value) else value
