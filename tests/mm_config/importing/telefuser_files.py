"""TeleFuser's dumps, edited and imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mm_config.importing.report import Entry
from mm_config.importing.telefuser.importer import import_dump
from mm_config.schema.errors import UserError
from mm_config.specs.infer import InferSpec

DATA = Path(__file__).parent / "data"
SEED, WAN22 = DATA / "telefuser_seed.json", DATA / "telefuser_wan22.json"

ABSENT = "not in the dump, so the official values hold"


def line_of(entry: Entry) -> int:
    return int(entry.place.rpartition(":")[2])


def edited(tmp_path: Path, source: Path, *changes: tuple[str, Any]) -> Path:
    """A copy of a dump with some keys set; an object that is missing is made."""
    data = json.loads(source.read_text("utf-8"))
    for key, value in changes:
        at = data
        *parents, last = key.split(".")
        for name in parents:
            at = at[int(name)] if isinstance(at, list) else at.setdefault(name, {})
        at[last] = value
    file = tmp_path / "dump.json"
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False), "utf-8")
    return file


def made(tmp_path: Path, *changes: tuple[str, Any], source: Path = SEED) -> InferSpec:
    return import_dump(edited(tmp_path, source, *changes))[0]


def refusal(tmp_path: Path, *changes: tuple[str, Any], source: Path = SEED) -> str:
    """The only problem, without its file and line, which must be that of its key."""
    file = edited(tmp_path, source, *changes)
    with pytest.raises(UserError) as caught:
        import_dump(file)
    (problem,) = caught.value.problems
    name, _, line = problem.path.rpartition(":")
    assert name == str(file)
    key = problem.message.partition(":")[0].rpartition(".")[2]
    known = file.read_text("utf-8").splitlines()[int(line) - 1]
    # A key that the dump leaves out is told at the object that lacks it.
    parent = problem.message.partition(":")[0].split(".")[-2:][0]
    assert any(f'"{name.partition("[")[0]}"' in known for name in (key, parent))
    return problem.message


DIT, VAE = "layer2_inference_config.dit_config", "layer2_inference_config.vae_config"
