"""Logical names for weights that a dump names by paths, and the locations that the paths become."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

import attrs

from mm_config.specs.weights import ReleasedWeights

_SUBFOLDERS = ("transformer", "transformer_2", "vae", "text_encoder", "image_encoder")
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


@attrs.frozen
class Hint:
    """Where weights of a logical name lay."""

    name: str
    """The logical name."""
    path: str
    """Empty where the dump does not say."""
    note: str
    """What else is to be told of them."""

    @property
    def location(self) -> str:
        """What `--location` is to say."""
        return f"{self.name}={self.path or 'DIR'}"

    @property
    def line(self) -> str:
        """The same in a report."""
        return f"--location {self.location}{f'  ({self.note})' if self.note else ''}"


def named_after(paths: Mapping[str, str]) -> dict[str, tuple[ReleasedWeights, Hint]]:
    """Weights of each path, by keys of the caller's.

    A relative path is a logical name. Of an absolute one the folder names the weights, with as many of
    its parents as tell the folders apart; a part's folder, or a file's stem, is the subfolder.
    """
    split = {key: _split(PurePosixPath(path)) for key, path in paths.items()}
    folders = dict.fromkeys(folder for folder, _ in split.values())
    names = {folder: _short(folder, [other for other in folders if other != folder]) for folder in folders}
    made: dict[str, tuple[ReleasedWeights, Hint]] = {}
    for key, (folder, subfolder) in split.items():
        name = names[folder]
        weights = ReleasedWeights(name=name, subfolder=subfolder)
        root = str(folder) if folder.is_absolute() else ""
        note = "" if root else "the dump names no folder"
        if root and PurePosixPath(paths[key]).suffix in _ENDINGS:
            note = f"a folder {subfolder} in diffusers' layout is wanted there; the dump names a file"
        made[key] = (weights, Hint(name, root, note))
    return made


def _split(path: PurePosixPath) -> tuple[PurePosixPath, str]:
    """The folder that names the weights, and the subfolder."""
    if path.parent != path and path.parent.name:
        if path.name in _SUBFOLDERS:
            return path.parent, path.name
        if path.suffix in _ENDINGS:
            return path.parent, path.stem
    return path, ""


def _short(folder: PurePosixPath, others: list[PurePosixPath]) -> str:
    if not folder.is_absolute():
        return str(folder)
    parts = [part for part in folder.parts if part != "/"] or ["root"]
    for count in range(1, len(parts)):
        name = "/".join(parts[-count:])
        if not any(f"/{other}".endswith(f"/{name}") for other in others):
            return name
    return "/".join(parts)
