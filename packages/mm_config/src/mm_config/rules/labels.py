"""Rules on the label of a run, which is the name of a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mm_config.schema.errors import Problem
from mm_config.schema.root import RootSpec


def label_problems(spec: RootSpec) -> Iterator[Problem]:
    """A label that can't be a folder below the runs folder; an empty one takes another in its place."""
    if spec.name and not re.fullmatch(r"[^\W_][^/\\\0]*", spec.name):
        yield Problem(
            "name", f"must be a folder's name that starts with a letter or a digit, got {spec.name!r}"
        )
