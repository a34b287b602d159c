"""A run records what its named releases were, and a reproduction tells where they are others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import tiny_high
from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
from mm_config.runs.provenance_diff import changes, origin_here, stored_origins
from mm_config.runs.releases import fingerprint, used_releases
from mm_config.specs.weights import ReleasedWeights

SPEC = replace(tiny_high.SPEC, "start_from", ReleasedWeights(name="my/wan", subfolder="transformer"))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "wan" / "transformer"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(3 * 2**20))
    return tmp_path / "wan"


def locations_of(release: Path) -> Locations:
    return Locations((Location("my/wan", release, "the test"),))


def test_a_run_records_path_and_fingerprint_of_its_releases(release: Path, tmp_path: Path) -> None:
    run = open_run(SPEC, RunOptions(tmp_path / "runs", locations=locations_of(release)))
    recorded = json.loads((run.path / "provenance.json").read_text("utf-8"))["releases"]
    folder = release / "transformer"
    assert recorded == {"my/wan/transformer": {"path": str(folder), "fingerprint": fingerprint(folder)}}


def test_other_values_names_and_sizes_are_other_fingerprints(release: Path) -> None:
    folder = release / "transformer"
    weights, seen = folder / "model.safetensors", {fingerprint(folder)}
    for changed in (b"\1" + bytes(3 * 2**20 - 1), bytes(3 * 2**20 - 1) + b"\1", bytes(3 * 2**20 + 1)):
        weights.write_bytes(changed)
        seen.add(fingerprint(folder))
    weights.rename(folder / "other.safetensors")
    seen.add(fingerprint(folder))
    assert len(seen) == 5
    (folder / ".cache").mkdir()
    (folder / ".cache" / "download.lock").write_text("now")
    assert fingerprint(folder) in seen
    assert fingerprint(folder / "config.json") != fingerprint(folder)


def test_a_reproduction_tells_that_a_release_is_another(release: Path, tmp_path: Path) -> None:
    locations = locations_of(release)
    run = open_run(SPEC, RunOptions(tmp_path / "runs", locations=locations))
    (then,) = stored_origins(run.path).values()

    def told() -> list[str]:
        here = origin_here((), releases=used_releases(SPEC, locations))
        return [str(change) for change in changes(then, here) if change.name.startswith("release")]

    assert told() == []
    (release / "transformer" / "model.safetensors").write_bytes(b"other")
    (line,) = told()
    assert line.startswith("release my/wan/transformer: fingerprint ")


def test_releases_that_are_nowhere_or_drawn_are_left_out(tmp_path: Path) -> None:
    assert used_releases(SPEC, Locations()) == {}
    assert used_releases(SPEC, locations_of(tmp_path / "absent")) == {}
    assert used_releases(tiny_high.SPEC, Locations()) == {}
