"""Damages of a run's checkpoint, drawn at random: of bytes, files, folders, manifests and JSON."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen
class Place:
    """A run with three intact checkpoints, and another run of the same spec."""

    folder: Path
    """The newest checkpoint, which is damaged."""
    older: Path
    """The one before it."""
    other_run: Path
    """The other run's checkpoint of the same step; of the same sizes, with other values."""
    other_spec: Path
    """Another spec's, of the same step and the same shapes."""


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip_a_bit(place: Place, draw: random.Random) -> str:
    file = draw.choice(files_of(place.folder))
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    return file.name


def zero_a_page(place: Place, draw: random.Random) -> str:
    file = draw.choice(files_of(place.folder))
    content = bytearray(file.read_bytes())
    start = draw.randrange(0, len(content), 4096)
    stop = min(start + 4096, len(content))
    content[start:stop] = bytes(stop - start)
    file.write_bytes(content)
    return file.name


def truncate(place: Place, draw: random.Random) -> str:
    file = draw.choice(files_of(place.folder))
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(len(content))])
    return file.name


def remove(place: Place, draw: random.Random) -> str:
    file = draw.choice(files_of(place.folder))
    file.unlink()
    return file.name


def add(place: Place, draw: random.Random) -> str:
    source = draw.choice(files_of(place.folder))
    added = source.with_name(f"{draw.randrange(10**6):06}-{source.name}")
    shutil.copyfile(source, added)
    return added.name


def swap_shards(place: Place, draw: random.Random) -> str:
    one, two = sorted((place.folder / draw.choice(["model", "optimizer"])).iterdir())
    one.rename(place.folder / "third")
    two.rename(one)
    (place.folder / "third").rename(two)
    return one.name


def replace_a_shard(place: Place, draw: random.Random) -> str:
    file = draw.choice(files_of(place.folder))
    source = draw.choice([place.older, place.other_run, place.other_spec])
    shutil.copyfile(source / file.relative_to(place.folder), file)
    return "" if file.name == "manifest.json" else file.name


def replay_a_manifest(place: Place, draw: random.Random) -> str:
    source = draw.choice([place.older, place.other_run, place.other_spec])
    shutil.copyfile(source / "manifest.json", place.folder / "manifest.json")
    return ""


def rename_an_older_step(place: Place, draw: random.Random) -> str:
    shutil.rmtree(place.folder)
    shutil.copytree(place.older, place.folder)
    return "step 4, not of step 6"


def move_in_another(place: Place, draw: random.Random) -> str:
    shutil.rmtree(place.folder)
    shutil.copytree(draw.choice([place.other_run, place.other_spec]), place.folder)
    return "not of run"


def edit_json(place: Place, draw: random.Random) -> str:
    file = place.folder / draw.choice(["manifest.json", "state.json"])
    content = json.loads(file.read_text())
    node: Any = content
    while True:
        key = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], (dict, list)) or not node[key] or draw.random() < 0.1:
            break
        node = node[key]
    match draw.randrange(4):
        case 0:
            del node[key]
        case 1 if isinstance(node[key], int):
            node[key] += draw.choice([-1, 1, 2**40])
        case 2 if isinstance(node[key], str) and node[key]:
            node[key] = node[key][:-1] + chr(ord(node[key][-1]) ^ 1)
        case _:
            node[key] = draw.choice([None, [], {}, "x", -1, 1e300])
    file.write_text(json.dumps(content, indent=2))
    return file.name


KINDS: tuple[Callable[[Place, random.Random], str], ...] = (
    flip_a_bit,
    zero_a_page,
    truncate,
    remove,
    add,
    swap_shards,
    replace_a_shard,
    replay_a_manifest,
    rename_an_older_step,
    move_in_another,
    edit_json,
)
"""Each returns what a refusal must name."""
