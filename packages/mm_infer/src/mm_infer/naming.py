"""Names of videos' files, that a person can read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from mm_config.specs import GenerationRequest

_LONGEST_SLUG = 50


def file_names(requests: Sequence[GenerationRequest]) -> tuple[str, ...]:
    """A distinct name for each request, from its prompt and seed: `a-red-circle-moving-right-1001.mp4`."""
    return tuple(_distinct(f"{slug(request.prompt)}-{request.seed}" for request in requests))


def slug(text: str) -> str:
    """Lower-case words of any script, joined by hyphens, cut to 50 characters."""
    return "-".join(re.findall(r"\w+", text.lower()))[:_LONGEST_SLUG].strip("-") or "video"


def _distinct(stems: Iterable[str]) -> Iterator[str]:
    taken: set[str] = set()
    for stem in stems:
        name, count = f"{stem}.mp4", 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}.mp4"
        taken.add(name)
        yield name
