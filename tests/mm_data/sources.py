"""Sources of clips that lie on the disk, as plain lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mm_data.index.building import Built, build
from mm_data.index.listed import LeftOut, Listed, Source
from mm_data.media import open_media


def listed(root: Path, name: str, *captions: str, **known: Any) -> Listed:
    """A clip of a source, as its reader would list it."""
    return Listed(name, root / name, captions or (f"caption of {name}",), f"list:{name}", **known)


def source_of(root: Path, entries: Sequence[Listed | LeftOut]) -> Source:
    return Source("list", str(root / "list"), root, (root,), entries)


class Opener:
    """Opens clips and remembers which."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def __call__(self, one: Listed) -> BinaryIO:
        self.opened.append(one.name)
        return open_media(one.path)


def index_of(root: Path, entries: Sequence[Listed | LeftOut], folder: Path, **options: Any) -> Built:
    """Builds an index; its name is that of its folder."""
    options = {"name": folder.name, "opened": Opener(), "workers": 2, **options}
    return build(source_of(root, entries), folder, **options)
