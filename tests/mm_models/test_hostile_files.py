"""Files of strangers at every door: nothing is run, fetched or read outside; each is a line, status 2."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from tests.mm_models import hostile, hostile_release
from tests.mm_models.hostile_texts import Case, text_cases
from tests.mm_models.hostile_weights import weight_cases

CASES = [*text_cases(), *weight_cases()]
FEW = 12
MOST_LINES, LONGEST_LINE = 24, 2000
"""A file with several mistakes has a line for each."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest") / "given"
    hostile_release.write(folder)
    return folder


@pytest.fixture
def around(tmp_path: Path) -> Iterator[hostile.Surroundings]:
    found, listener = hostile.surround(tmp_path)
    yield found
    os.kill(listener, signal.SIGKILL)
    os.waitpid(listener, 0)
    os.close(found.watch)
    os.close(found.hits)


def wrong(case: Case, honest: Path, around: hostile.Surroundings) -> list[str]:
    """What a hostile file did that it must not."""
    folder = around.canary.parent / "given"
    shutil.copytree(honest, folder)
    case.damage(folder)
    outcome = hostile.attempt(lambda: hostile_release.DOORS[case.door](folder), around.port, folder.parent)
    shutil.rmtree(folder)
    found = around.touched()
    lines = [line for line in outcome.lines if line]
    if outcome.status != 2 or not 1 <= len(lines) <= MOST_LINES or max(map(len, lines)) > LONGEST_LINE:
        found.append(
            f"status {outcome.status} after {outcome.seconds:.1f} s: {[line[:300] for line in lines[-4:]]}"
        )
    if hostile.CANARY in "".join(lines):
        found.append("printed what lies outside")
    return [f"{case.door}, {case.name}: {one}" for one in found]


@pytest.mark.slow
def test_honest_files_open_at_every_door(honest: Path, around: hostile.Surroundings) -> None:
    for name, door in hostile_release.DOORS.items():
        outcome = hostile.attempt(lambda door=door: door(honest), around.port, around.canary.parent)
        assert (outcome.status, around.touched()) == (0, []), (name, outcome.lines)


def test_what_is_fetched_and_read_outside_is_seen(around: hostile.Surroundings) -> None:
    def fetch() -> None:
        from huggingface_hub import hf_hub_download

        hf_hub_download("evil/repo", "config.json")

    hostile.attempt(fetch, around.port, around.canary.parent)
    around.canary.read_bytes()
    around.marker.mkdir()
    assert around.touched() == ["ran code", "fetched something", "read outside"]


def test_some_hostile_files_are_refused_in_a_line(honest: Path, around: hostile.Surroundings) -> None:
    seed = date.today().toordinal()
    print(f"seed {seed}")
    chosen = random.Random(seed).sample(CASES, FEW)
    assert not [one for case in chosen for one in wrong(case, honest, around)]


@pytest.mark.slow
def test_every_hostile_file_is_refused_in_a_line(honest: Path, around: hostile.Surroundings) -> None:
    found = [one for case in CASES for one in wrong(case, honest, around)]
    print(f"{len(CASES)} files, {len(found)} wrong")
    assert len(CASES) >= 150
    assert not found, "\n".join(found)
