"""How long it takes to search an index of 10,000 runs, in an open process.

    python benchmarks/runs_index.py [RUNS]

Half are trainings, half are generations with the trainings that their weights come from. SQLite is
measured, and PostgreSQL where MM_TEST_PG_URL names a server; its table is dropped at the end.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from experiments import tiny, tiny_high
from mm_config.runs.conditions import parse_condition
from mm_config.runs.index import Index, open_index
from mm_config.runs.record import SPEC_FILE, RunRecord, RunStatus
from mm_config.runs.stored import Stored, read_stored
from mm_config.schema.decorator import tag_of
from mm_config.schema.errors import UserError
from mm_config.schema.root import RootSpec, aliases_of
from mm_config.stored import dump

ROUNDS = 5
ALIASES = {tag_of(spec): aliases_of(type(spec)) for spec in (tiny.SPEC, tiny_high.SPEC)}


def main() -> None:
    """Prints a line per question."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    os.environ.pop("MM_RUNS_URL", None)
    with tempfile.TemporaryDirectory() as folder:
        measure("SQLite", Path(folder), count)
        print(f"  index.sqlite has {(Path(folder) / 'index.sqlite').stat().st_size / 2**20:.0f} MiB")
    if server := os.environ.get("MM_TEST_PG_URL"):
        os.environ["MM_RUNS_URL"] = server
        with tempfile.TemporaryDirectory() as folder:
            measure("PostgreSQL", Path(folder), count)


def measure(name: str, runs_dir: Path, count: int) -> None:
    """Fills an index, asks each question several times, and drops the table."""
    index = open_index(runs_dir)
    elapsed, busy = measured(lambda: index.add_all(synthetic(count)))
    print(f"{name}: {count} runs registered in {elapsed:.1f} s, {busy:.1f} s of this process")
    questions: dict[str, Callable[[], object]] = {
        "8-digit prefix": lambda: index.list(matching=digest(count // 2)[:8]),
        "finished runs of a hash": lambda: index.find_finished(digest(count // 2)),
        "label": lambda: index.list(matching="run-7"),
        "optim.lr>1e-5": lambda: where(index, "optim.lr>1e-5"),
        "steps>5000, of both kinds": lambda: where(index, "steps>5000"),
        "name~run-77 and seed=77": lambda: where(index, "name~run-77", "seed=77"),
        "a misspelt field": lambda: where(index, "optm.lr>1e-5"),
        "all runs": index.list,
    }
    for question, ask in questions.items():
        elapsed, busy = map(statistics.median, zip(*(measured(ask) for _ in range(ROUNDS)), strict=True))
        print(f"  {question:26} {elapsed * 1000:8.1f} ms, {busy * 1000:8.1f} ms of this process")
    index.runs.drop(index.engine)


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that it takes, and this process's processor seconds, which other work lengthens less."""
    elapsed, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - elapsed, time.process_time() - busy


def where(index: Index, *conditions: str) -> object:
    """The runs that meet conditions; what is wrong with them where they are wrong."""
    try:
        return index.list(where=[parse_condition(text) for text in conditions], aliases=ALIASES)
    except UserError as error:
        return error


def stored(spec: RootSpec) -> Stored:
    """What the index takes from a spec."""
    with tempfile.TemporaryDirectory() as folder:
        dump(spec, Path(folder) / SPEC_FILE)
        return read_stored(Path(folder))


def synthetic(count: int) -> Iterator[tuple[RunRecord, Stored]]:
    """Finished runs of the tiny specs, each with a seed, a label and a hash of its own."""
    trained, made = stored(tiny_high.SPEC), stored(tiny.SPEC)
    for number in range(count):
        kind, base, steps = ("train", trained, "schedule") if number % 2 else ("infer", made, "sampler")
        changes: dict[str, Any] = {"seed": number, "name": f"run-{number}", f"{steps}.steps": number}
        if kind == "train":
            changes["optim.lr"] = number * 1e-8
        record = RunRecord(
            uid=f"{number:032x}",
            path=f"run-{number}/20261122-{digest(number)[:12]}-1",
            name=f"run-{number}",
            kind=kind,
            spec_hash=digest(number),
            exact_hash=digest(-number),
            status=RunStatus.FINISHED,
            host="here",
            started_at=f"2026-11-22T00:00:00.{number:06}+00:00",
        )
        yield record, attrs.evolve(base, fields={**base.fields, **changes})


def digest(number: int) -> str:
    """64 hex digits."""
    return hashlib.sha256(str(number).encode()).hexdigest()


if __name__ == "__main__":
    main()
