"""Glob patterns over module names, as sharding and other plans use them: `blocks.*`, `blocks.*.attn1`."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase

from mm_config.specs.kinds import ModelSpec


def module_names(model: ModelSpec) -> tuple[str, ...]:
    """The modules that hold parameters, directly or inside, in the network's order."""
    names: dict[str, None] = {}
    for parameter in model.parameter_shapes():
        parts = parameter.split(".")[:-1]
        names.update(dict.fromkeys(".".join(parts[:length]) for length in range(1, len(parts) + 1)))
    return tuple(names)


def matches(name: str, pattern: str) -> bool:
    """Whether a module's name fits a pattern, segment by segment: `*` never crosses a dot."""
    parts, globs = name.split("."), pattern.split(".")
    return len(parts) == len(globs) and all(map(fnmatchcase, parts, globs))


def nearest(pattern: str, names: tuple[str, ...], count: int = 3) -> list[str]:
    """Patterns that match something and look most like this one; the indices of blocks as `*`."""
    shapes = dict.fromkeys(
        ".".join("*" if part.isdecimal() else part for part in name.split(".")) for name in names
    )
    return difflib.get_close_matches(pattern, shapes, count, cutoff=0.0)
