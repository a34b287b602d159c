"""What a download may have left where a file of weights should be."""

from __future__ import annotations

from pathlib import Path

from mm_config.durable import open_regular

_BEGINNING = 256
"""Bytes that tell."""


def placeholder(file: Path) -> str | None:
    """What stands in a file's place, as an error says it; None where it is nothing that is known."""
    try:
        with open_regular(file) as content:
            begins = content.read(_BEGINNING).lstrip().lower()
    except OSError:
        return None
    if begins.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself; `git lfs pull` fetches that"
    if begins.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not the file itself; download that again"
    return None
