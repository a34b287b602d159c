"""How long the board takes to answer over 10,000 runs.

    python benchmarks/board.py [RUNS]

The runs are those of `runs_index.py`, each with a folder and its status. SQLite is measured, and PostgreSQL
where MM_TEST_PG_URL names a server; its table is dropped at the end.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from starlette.testclient import TestClient

from benchmarks.runs_index import digest, measured, synthetic
from mm_config.runs.index import open_index
from mm_config.runs.record import write_record
from mm_train.board.app import board_app

ROUNDS = 15
PAGES = {
    "first page": "/",
    "page 100": "/?page=100",
    "optim.lr>1e-5": "/?where=optim.lr%3E1e-5",
    "name~run-77 and seed=77": "/?where=name~run-77&where=seed%3D77",
    "sorted by a field, which is shown": "/?sort=optim.lr&show=optim.lr",
    "finished ones": "/?status=finished",
    "a misspelt field": "/?where=optm.lr%3E1",
    "8-digit prefix": f"/?q={digest(77)[:8]}",
}


def main() -> None:
    """Prints a line per page."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    os.environ.pop("MM_RUNS_URL", None)
    with tempfile.TemporaryDirectory() as folder:
        measure("SQLite", Path(folder), count)
        if server := os.environ.get("MM_TEST_PG_URL"):
            os.environ["MM_RUNS_URL"] = server
            measure("PostgreSQL", Path(folder), count)


def measure(name: str, runs_dir: Path, count: int) -> None:
    """Fills an index and its folders, and asks for each page several times."""
    index = open_index(runs_dir)
    index.add_all(synthetic(count))
    for record, _ in synthetic(count):
        (folder := runs_dir / record.path).mkdir(parents=True, exist_ok=True)
        write_record(record, folder)
    started = time.perf_counter()
    client = TestClient(board_app(runs_dir), base_url="http://127.0.0.1")
    client.get("/").raise_for_status()
    print(f"{name}, {count} runs: opened, with its first page, in {time.perf_counter() - started:.2f} s")
    for title, address in PAGES.items():
        times = [
            measured(lambda address=address: client.get(address).raise_for_status()) for _ in range(ROUNDS)
        ]
        elapsed, busy = (sorted(one) for one in zip(*times, strict=True))
        print(
            f"  {title:36} median {statistics.median(elapsed) * 1000:7.0f} ms, slowest "
            f"{elapsed[-1] * 1000:7.0f} ms, {statistics.median(busy) * 1000:7.0f} ms of this process"
        )
    index.runs.drop(index.engine)


if __name__ == "__main__":
    main()
