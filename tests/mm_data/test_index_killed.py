"""An indexing that is killed outright, again and again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mm_data.index.table import IndexedRecords
from tests.mm_data.conftest import Coded
from tests.mm_data.sources import Opener, index_of, listed

CLIPS, WORKERS = 60, 2
INDEXING = """
import sys, time
from pathlib import Path
from tests.mm_data.sources import Opener, index_of, listed

root, folder, log = map(Path, sys.argv[1:])

class Slow(Opener):
    def __call__(self, one):
        time.sleep(0.01)
        with log.open("a") as file:
            print(one.name, file=file)
        return super().__call__(one)

index_of(root, [listed(root, path.name) for path in sorted(root.iterdir())], folder, opened=Slow())
"""


@pytest.mark.slow
def test_kills_at_any_time_cost_no_measured_file(tmp_path: Path, coded: Coded) -> None:
    root, folder = tmp_path.resolve() / "clips", tmp_path / "out/index"
    root.mkdir()
    first = coded.write(root / "00.mp4", range(5))
    for number in range(1, CLIPS):
        shutil.copyfile(first, root / f"{number:02}.mp4")
    log = tmp_path / "log"
    journal = tmp_path / "out/index.measured.jsonl"
    draw, kept = random.Random(5), 0
    for _ in range(4):
        wanted = kept + draw.randrange(1, 8)
        process = subprocess.Popen([sys.executable, "-c", INDEXING, root, folder, log])
        while kept < wanted:
            time.sleep(0.002)
            assert process.poll() is None
            kept = journal.read_bytes().count(b'"sha256"') if journal.exists() else 0
        time.sleep(draw.uniform(0.0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not folder.exists()
    kept = journal.read_bytes().count(b'"pts_sha256"')
    opener = Opener()
    index_of(root, [listed(root, path.name) for path in sorted(root.iterdir())], folder, opened=opener)
    assert len(opener.opened) == CLIPS - kept
    assert log.read_text("utf-8").count("\n") <= kept + 4 * WORKERS
    assert len(IndexedRecords(folder)) == CLIPS
    assert sorted(path.name for path in folder.parent.iterdir()) == ["index"]
