"""Paths of a dump as logical names of weights, and the folders that the names stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import attrs

from mm_config.importing.telefuser.families import KNOWN
from mm_config.specs.weights import ReleasedWeights

_DIFFUSERS = ("transformer", "transformer_2", "vae", "text_encoder", "image_encoder")
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")
_OPEN = re.compile(r"[<>{}$*]|\.\.\.|path[/_-]?to|\byour[_-]|(?<![a-z])(none|null|todo|xxx+)(?![a-z])", re.I)
_SUFFIX = re.compile(r"-diffusers$", re.I)
_RELEASES = {
    _SUFFIX.sub("", weights.name).rpartition("/")[2].lower(): weights.name
    for known in KNOWN
    if isinstance(weights := known.family.high_noise, ReleasedWeights)
}
"""Releases in diffusers' layout by the last part of their name, in small letters without `-diffusers`."""


@attrs.frozen
class Place:
    """Where weights lie."""

    root: str
    """The folder that the name stands for; empty where the dump does not say it."""
    inside: str
    """The file or folder in it; empty for the root itself."""
    release: str
    """The published release that the folder is named after; empty for none."""


def original_of(release: str) -> str:
    """The name of a release in the original layout."""
    return _SUFFIX.sub("", release)


def place_of(paths: tuple[str, ...]) -> Place | None:
    """Where files lie, which together are one network's; None for files of several folders."""
    files = [PurePosixPath(path) for path in paths]
    if len({file.parent for file in files}) > 1:
        return None
    path, shards = files[0], [_SHARD.fullmatch(file.name) for file in files]
    if first := shards[0]:
        path = path.with_name(f"{first[1]}{first[2]}.index.json")
    if "*" in path.name or (len(files) > 1 and not all(shards)):
        path = path.parent
    place = _released(path) or _own(path)
    if place.inside.endswith(".index.json") and "/" in place.inside:
        place = attrs.evolve(place, inside=place.inside.rpartition("/")[0])
    return attrs.evolve(place, root="") if _OPEN.search(place.root) else place


def _released(path: PurePosixPath) -> Place | None:
    """A path in a folder of a release, also as hubs' caches call it."""
    for index, part in enumerate(path.parts):
        plain = part.replace("___", ".").rpartition("--")[2]
        if release := _RELEASES.get(_SUFFIX.sub("", plain).lower()):
            end = index + (3 if path.parts[index + 1 : index + 2] == ("snapshots",) else 1)
            inside = path.parts[end:]
            root = "/".join(path.parts[:end]).replace("//", "/")
            if inside and inside[0] in _DIFFUSERS:
                return Place("" if root == release else root, inside[0], release)
            original = original_of(release)
            return Place("" if root == original else root, "/".join(inside), original)
    return None


def _own(path: PurePosixPath) -> Place:
    if (
        path.parent != path
        and path.parent.name
        and (path.name in _DIFFUSERS or path.suffix in (*_ENDINGS, ".json"))
    ):
        return Place(str(path.parent), path.name, "")
    return Place(str(path), "", "")


def names_of(places: Iterable[Place]) -> Mapping[Place, str]:
    """A logical name for each place: the release's, or the last parts of its folder that tell it apart."""
    found = list(dict.fromkeys(places))
    roots: dict[str, str] = {}
    names: dict[Place, str] = {}
    for place in found:
        taken = roots.setdefault(place.release, place.root) if place.release else None
        if taken == place.root:
            names[place] = place.release
        else:
            others = [other.root for other in found if other.root != place.root]
            names[place] = _short(PurePosixPath(place.root or "weights"), others)
    return names


def _short(folder: PurePosixPath, others: list[str]) -> str:
    parts = [part for part in folder.parts if part != "/"] or ["root"]
    if not folder.is_absolute():
        return "/".join(parts)
    for count in range(1, len(parts)):
        name = "/".join(parts[-count:])
        if not any(f"/{other}".endswith(f"/{name}") for other in others):
            return name
    return "/".join(parts)
