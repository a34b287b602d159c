"""Commands that are killed, that write by half and that meet a full disk lose nothing and jam nothing."""

from __future__ import annotations

import random
import re
import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.commands import Commands
from tests.faults.judging import Point, faults_found, hangs, kills, points, prepare
from tests.faults.verbs import VERBS, Verb

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("cc") is None,
    reason="faults are injected by a C library that Linux loads first; install gcc",
)
POINTS = 60
VERBS_OF_A_DAY = 3
SEED = int(f"{datetime.now(UTC):%Y%m%d}")


def wrong(commands: Commands, verb: Verb, rng: random.Random, number: int | None = None) -> Iterable[str]:
    """What is wrong after faults in a command: after so many drawn ones, or after each."""
    prepared = prepare(commands, verb)
    taken: list[Point] = list(points(prepared, rng))
    for point in taken if number is None else rng.sample(taken, min(number, len(taken))):
        for line in faults_found(commands, prepared, point):
            yield f"{point}\n    {line}"


def test_faults_of_the_day_lose_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    with Commands(tmp_path) as commands:
        found = [
            line
            for verb in rng.sample([verb for verb in VERBS if verb.ranks == 1], VERBS_OF_A_DAY)
            for line in wrong(commands, verb, rng, POINTS // VERBS_OF_A_DAY)
        ]
    assert not found, f"seed {SEED}\n" + "\n".join(found)


@pytest.mark.slow
def test_100_kills_of_what_is_saved_beside_the_steps_and_by_ranks_lose_nothing(tmp_path: Path) -> None:
    rng, found = random.Random(SEED), list[str]()
    with Commands(tmp_path) as commands:
        for number, name in ((34, "train beside"), (33, "train on ranks"), (33, "train on ranks beside")):
            (verb,) = (verb for verb in VERBS if verb.name == name)
            prepared = prepare(commands, verb)
            for point in (*kills(prepared, rng, number), *hangs(prepared, rng, 2 * (verb.ranks > 1))):
                found += [f"{point}\n    {line}" for line in faults_found(commands, prepared, point)]
    assert not found, f"seed {SEED}\n" + "\n".join(found)


@pytest.mark.slow
def test_faults_at_every_call_lose_nothing(tmp_path: Path) -> None:
    def all_of(verb: Verb) -> list[str]:
        with Commands(tmp_path / re.sub(r"\W+", "-", verb.name)) as commands:
            return list(wrong(commands, verb, random.Random(SEED)))

    with ThreadPoolExecutor(2) as threads:
        found = [line for lines in threads.map(all_of, VERBS) for line in lines]
    assert not found, f"seed {SEED}\n" + "\n".join(found)
