"""Damages drawn at random, at resume and at generation: each is found and named, or changes no bit."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mm_models
from mm_config.schema import UserError
from mm_config.specs import WanTransformerSpec
from mm_models import blocks, checkpoint, load_group, manifest
from tests.mm_models.checkpoints import filled, optimizer_of, save, shard
from tests.mm_models.damages import KINDS, Place, files_of

BLOCK_BYTES = 2**14


def _save_steps(rank: int, spec: WanTransformerSpec, runs: Path) -> None:
    for seed, (run, step) in enumerate((("run", 4), ("run", 6), ("same", 6), ("other", 6))):
        save(runs / run / "checkpoints" / f"step-{step:08}", shard(filled(spec, seed)))


@pytest.fixture
def place(
    tiny: WanTransformerSpec,
    tmp_path: Path,
    run_ranks: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for module in (blocks, manifest):
        monkeypatch.setattr(module, "BLOCK_BYTES", BLOCK_BYTES)
    for uid, name in enumerate(("run", "same", "other")):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        status = {"uid": f"{uid:032x}", "spec_hash": ("b" if name == "other" else "a") * 64}
        (tmp_path / name / "status.json").write_text(json.dumps(status))
    run_ranks(_save_steps, tiny, tmp_path)
    steps = {name: tmp_path / name / "checkpoints" / "step-00000006" for name in ("run", "same", "other")}
    older = steps["run"].with_name("step-00000004")
    return Place(steps["run"], older, steps["same"], steps["other"])


def generated(folder: Path, spec: WanTransformerSpec) -> Mapping[str, Tensor]:
    """What a generation, or a training that starts from it, would compute with."""
    network = mm_models.build(spec, "cpu")
    mm_models.load(network, folder)
    return network.state_dict()


def resumed(folder: Path, spec: WanTransformerSpec) -> Mapping[str, Tensor]:
    """What a resumed training would go on from: the state, as one number by key, too."""
    network = mm_models.build(spec, "cpu")
    load_group(folder, "model", network.state_dict())
    moments = {name: torch.zeros_like(value) for name, value in optimizer_of(network).items()}
    load_group(folder, "optimizer", moments)
    state = {key: torch.tensor(hash(str(value))) for key, value in checkpoint.read_state(folder).items()}
    return {**network.state_dict(), **{f"moment {key}": value for key, value in moments.items()}, **state}


def outcome(act: Callable[[], Mapping[str, Tensor]], intact: Mapping[str, Tensor], named: str) -> str:
    try:
        found = act()
    except UserError as error:
        (line,) = str(error).splitlines()
        assert "step-00000006: is damaged: " in line and named in line, (line, named)
        return "refused"
    assert found.keys() == intact.keys()
    assert all(torch.equal(value, intact[key]) for key, value in found.items())
    return "harmless"


def same(file: Path, whole: Path) -> bool:
    """Whether nothing was damaged: a page was zero already, two runs' states are equal, JSON reads alike."""
    equal = file.read_bytes() == whole.read_bytes()
    return equal or (
        file.name == "manifest.json" and json.loads(file.read_text()) == json.loads(whole.read_text())
    )


def damage_and_look(place: Place, spec: WanTransformerSpec, count: int, seed: int) -> Counter[Any]:
    """Damages a fresh copy each time; what came of it, by kind and by what was done then."""
    draw, whole = random.Random(seed), place.folder.with_name("whole")
    place.folder.rename(whole)
    shutil.copytree(whole, place.folder)
    ways = {"generation": generated, "resume": resumed}
    intact = {name: way(place.folder, spec) for name, way in ways.items()}
    counts: Counter[Any] = Counter()
    for index in range(count):
        shutil.rmtree(place.folder)
        shutil.copytree(whole, place.folder)
        kind = KINDS[index % len(KINDS)]
        named = kind(place, draw)
        taken = checkpoint.latest(place.folder.parent)
        assert taken in (place.folder, place.older), kind
        problems = checkpoint.verify(place.folder)
        assert (taken == place.older) == bool(problems), kind
        if not problems:
            assert all(same(file, whole / file.relative_to(place.folder)) for file in files_of(place.folder))
        else:
            assert named in "; ".join(problems), (kind, problems, named)
        for name, way in ways.items():
            result = outcome(lambda way=way: way(place.folder, spec), intact[name], named)  # type: ignore[misc]
            assert problems or result == "harmless"
            counts[name, kind.__name__, result] += 1
        counts["latest", kind.__name__, "passed over" if problems else "harmless"] += 1
    return counts


def check(place: Place, spec: WanTransformerSpec, count: int, seed: int) -> None:
    counts = damage_and_look(place, spec, count, seed)
    for key, number in sorted(counts.items()):
        print(*key, number)
    passed_over = sum(number for (_, _, came), number in counts.items() if came == "passed over")
    assert passed_over > 0.95 * count


def test_damages_are_found_or_harmless(tiny: WanTransformerSpec, place: Place) -> None:
    check(place, tiny, 3 * len(KINDS), seed=1)


@pytest.mark.slow
def test_500_damages_are_found_or_harmless(tiny: WanTransformerSpec, place: Place) -> None:
    check(place, tiny, 500, seed=2)
