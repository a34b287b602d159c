"""Opening indexes of a million and of a hundred million rows: seconds, and memory that no other process has.

    python benchmarks/index_scale.py [--rows 1000000] [--slim 100000000] [--folder DIR]

The smaller index has a caption of 70 words for each row and 16 real clips of 8 sizes, to which its rows point
in turn. A process of its own opens it, sorts its rows into 8 buckets and takes the first batch of 32 clips
from the stream; another does the same with the sorting kept; a third reads the same captions from a JSON
list, as layouts without an index do. The larger one is the slim table alone (66 bytes a row, and as much
again while it is made): one process sorts it, two others open it with the sorting kept, one after the other,
and one reads the five columns that sorting asks for, which is the least that it could take.

Times begin after imports. Memory is what `/proc/self/smaps_rollup` has beyond that at the same point: pages
that were written, which each rank has of its own. Pages of mapped files are shared by ranks and given up
when memory is short; they are told apart. `--slim 0` leaves out the larger one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm_config.specs import BucketSpec, DataSpec, IndexSpec
from mm_data import Dataset, stream, write_mp4
from mm_data.index.table import ROWS, Head, IndexedRecords, write_head, write_table
from mm_data.plan.making import make_plan

SIZES = ((64, 96), (96, 64), (64, 64), (96, 96), (64, 128), (128, 64), (128, 128), (96, 128))
FRAMES, FPS, CLIPS, BATCH, CHUNK = 17, 8, 16, 32, 2**20
COLUMNS = ("frames", "fps_num", "fps_den", "height", "width")
GOALS = {"a million rows and their first batch": 3.0, "the slim table, sorted before": 10.0}
MIB = 2**20


def main() -> int:
    """Makes the indexes and prints a line per process; 1 where a goal is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--slim", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--turn", choices=sorted(TURNS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        print(json.dumps(measured(TURNS[options.turn], options.folder)))
        return 0
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        missed = whole_index(folder, options.rows)
        if options.slim:
            missed += slim_table(folder, options.slim)
    finally:
        shutil.rmtree(folder)
    return int(missed > 0)


def whole_index(folder: Path, rows: int) -> int:
    """The smaller index. Returns how many goals it misses."""
    index = folder / "whole"
    index.mkdir()
    write_clips(index)
    write_rows(index, rows)
    write_texts(index, rows)
    first, again, plain = (turn(name, index) for name in ("batch", "batch", "json"))
    print(f"{rows:,} rows with captions")
    missed = told("a million rows and their first batch", first)
    told("the same, sorted before", again)
    told("captions from a JSON list", plain)
    times, more = plain["seconds"] / first["seconds"], plain["own"] / max(first["own"], 1)
    print(f"  the list alone takes {times:.1f} times as long and {more:.1f} times the memory")
    return missed


def slim_table(folder: Path, rows: int) -> int:
    """The larger one. Returns how many goals it misses."""
    index = folder / "slim"
    index.mkdir()
    write_rows(index, rows)
    columns, sorting, *kept = (turn(name, index) for name in ("columns", "plan", "plan", "plan"))
    print(f"{rows:,} rows, the slim table alone: {(index / 'rows.arrow').stat().st_size / 1e9:.1f} GB")
    told("read the columns that sorting asks for", columns)
    told("the slim table, sorted now", sorting)
    missed = max(told("the slim table, sorted before", one) for one in kept)
    print(
        f"  sorting takes {sorting['seconds'] / columns['seconds']:.1f} times as long as reading the columns"
    )
    return missed


def told(what: str, found: dict[str, float]) -> int:
    """Prints what a process took. Returns 1 where it misses its goal."""
    goal = GOALS.get(what)
    wanted = "" if goal is None else f" (goal {goal:g} s and 300 MiB)"
    memory = f"{found['own'] / MIB:6.1f} MiB of its own, {found['mapped'] / MIB:8.1f} MiB of files mapped"
    print(f"  {what:40} {found['seconds']:7.3f} s  {memory}{wanted}", flush=True)
    return int(goal is not None and (found["seconds"] > goal or found["own"] > 300 * MIB))


def turn(name: str, index: Path) -> dict[str, float]:
    """What a process of its own finds."""
    words = [sys.executable, __file__, "--turn", name, "--folder", str(index)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measured(work: Callable[[Path], Any], index: Path) -> dict[str, float]:
    """Seconds of a piece of work, and the memory that it holds at its end."""
    before, started = memory(), time.perf_counter()
    held = work(index)
    seconds, after = time.perf_counter() - started, memory()
    del held
    return {"seconds": seconds, **{name: after[name] - before[name] for name in after}}


def memory() -> dict[str, int]:
    """Bytes of this process that are its own, and those of mapped files."""
    lines = Path("/proc/self/smaps_rollup").read_text("utf-8").splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {"own": 1024 * kib["Private_Dirty"], "mapped": 1024 * (kib["Rss"] - kib["Anonymous"])}


def first_batch(index: Path) -> Any:
    """The first batch of clips, decoded."""
    data, dataset = opened(index)
    with stream(data, dataset, seed=1, end_step=1) as batches:
        return [dataset, *batches]


def plan_of(index: Path) -> Any:
    """The plan, and the clips of its first batch by number."""
    plan = make_plan(*opened(index), 1)
    return plan, plan.batch(0)


def columns_of(index: Path) -> float:
    """A pass over the columns that sorting asks for."""
    records = IndexedRecords(index)
    return sum(float(records.columns(name).sum()) for name in COLUMNS)


def json_list(index: Path) -> Any:
    """All captions, as a JSON list has them."""
    return json.loads((index / "list.json").read_bytes())


TURNS = {"batch": first_batch, "plan": plan_of, "columns": columns_of, "json": json_list}


def opened(index: Path) -> tuple[DataSpec, Dataset]:
    """The index, and a spec that sorts its clips into buckets."""
    records = IndexedRecords(index)
    buckets = tuple(BucketSpec(num_frames=9, height=height, width=width) for height, width in SIZES)
    spec = IndexSpec(name="scale", digest=records.head.digest)
    data = DataSpec(
        dataset=spec, batch_size=BATCH, num_frames=9, height=64, width=64, fps=float(FPS), buckets=buckets
    )
    return data, Dataset(records.root, records, records.head.order_key)


def write_clips(index: Path) -> None:
    """Clips of moving noise, and what was measured of them."""
    sizes = [SIZES[number % len(SIZES)] for number in range(CLIPS)]
    for number, (height, width) in enumerate(sizes):
        noise = np.random.default_rng(number).integers(0, 255, (FRAMES, height, width, 3), np.uint8)
        write_mp4(index / f"{number}.mp4", noise, fps=FPS)
    heights, widths = zip(*sizes, strict=True)
    write_table(index / "media.arrow", {"height": heights, "width": widths})
    write_table(index / "places.arrow", {"path": [f"{number}.mp4" for number in range(CLIPS)]})


def write_rows(index: Path, rows: int) -> None:
    """The slim table, by way of files of single columns, so that memory stays small."""
    arrays: dict[str, Any] = {}
    for name, kind in ROWS.items():
        arrays[name] = np.memmap(index / f"{name}.raw", kind, "w+", shape=(rows,))
        for start in range(0, rows, CHUNK):
            numbers = np.arange(start, min(start + CHUNK, rows))
            arrays[name][start : start + CHUNK] = values(name, numbers)
    write_table(index / "rows.arrow", arrays)
    for name in ROWS:
        (index / f"{name}.raw").unlink()
    write_head(index, Head("scale", "0" * 64, "1" * 64, ".", rows))


def values(name: str, numbers: np.ndarray) -> np.ndarray | int:
    """A column's values in some rows."""
    constants = {"frames": FRAMES, "fps_num": FPS, "fps_den": 1}
    if name in ("media", "place"):
        return numbers % CLIPS
    if name in ("height", "width"):
        return np.array(SIZES)[numbers % len(SIZES), int(name == "width")]
    return constants.get(name, 0)


def write_texts(index: Path, rows: int) -> None:
    """Captions of 70 words, and the same as a JSON list."""
    caption = " ".join(f"word{number}" for number in range(70))
    captions = [f"{caption} {number}" for number in range(rows)]
    entries = [{"path": f"{number % CLIPS}.mp4", "cap": text} for number, text in enumerate(captions)]
    (index / "list.json").write_text(json.dumps(entries), encoding="utf-8")
    texts = {
        "name": [entry["path"] for entry in entries],
        "captions": pa.LargeListArray.from_arrays(np.arange(rows + 1), pa.array(captions, pa.large_string())),
        "crop": pa.nulls(rows, pa.list_(pa.int64())),
    }
    write_table(index / "texts.arrow", texts)


if __name__ == "__main__":
    sys.exit(main())
