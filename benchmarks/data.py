"""The data stream against bare decoding, and against a map-style dataset that reads whole clips.

    python benchmarks/data.py [--clips 24] [--workers 2] [--rounds 3] [--flat 10000]
                              [--only bare,seed,wait,flat]

All ways are given the same 10 s clips of 1280x720 at 24 frames/s, with a keyframe every 24 or every 250
frames, and make random windows of 49 frames at 480x832 of them. They take turns; the medians of clips/s are
compared, and the best rounds in brackets.

bare  Opening, seeking, decoding and swscale to the same size of the very frames that the stream gives, with
      as many threads. The stream's rate should be at least 0.9 of it; processor time says the same on a busy
      machine.
seed  A map-style dataset with torch's DataLoader and as many worker processes: it decodes the whole clip to
      RGB, cuts the window, and resizes and crops float32. The stream should be twice as fast with a third of
      the memory: the peak of what all of its processes hold (PSS).
wait  Batches for a model that only sleeps after each, so long that it asks for 0.9 of the bare rate: the
      share of the time after the first batch that it waits for data, which should be below 1 %.
flat  Memory after a tenth and after all of so many small clips.

`--clips 8 --rounds 1 --flat 500` takes some minutes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import attrs
from data_clips import Ask, bare_rate, seed_rate, write_clips
from data_memory import alone, resident

from mm_config.specs import ClipStart, DataSpec, ManifestSpec
from mm_data import Asked, Clip, Dataset, Record, load_clip, stream

FRAMES, HEIGHT, WIDTH, FPS = 49, 480, 832, 24
GOPS = (24, 250)
MIB = 2**20


def wanted(workers: int) -> DataSpec:
    """Random windows of what the module's docstring says."""
    return DataSpec(
        dataset=ManifestSpec(name="clips"),
        batch_size=2,
        num_frames=FRAMES,
        height=HEIGHT,
        width=WIDTH,
        fps=float(FPS),
        start=ClipStart.RANDOM,
        workers=workers,
        prefetch=2,
    )


def dataset_of(paths: list[Path], clips: int) -> Dataset:
    """So many records over the files, one after the other."""
    records = tuple(Record(paths[n % len(paths)], str(n)) for n in range(clips))
    return Dataset(paths[0].parent, records, "benchmark")


def asks(data: DataSpec, dataset: Dataset, clips: int) -> list[Ask]:
    """The files and timestamps of the frames that the stream gives, in its order."""
    found: list[Ask] = []

    def look(asked: Asked) -> int:
        found.append(Ask.of(asked, data))
        return asked.index

    with stream(data, dataset, seed=0, end_step=clips // data.batch_size, load=look, workers=0) as batches:
        assert sum(len(batch.items) for batch in batches) == clips
    return found


def stream_rate(data: DataSpec, dataset: Dataset, clips: int) -> float:
    """Clips/s from a stream that starts until its last batch has come."""
    started = time.perf_counter()
    with stream(data, dataset, seed=0, end_step=clips // data.batch_size) as batches:
        for _ in range(clips // data.batch_size):
            assert all(isinstance(clip, Clip) for clip in next(batches).items)
        return clips / (time.perf_counter() - started)


def compared(rates: list[float], with_others: list[float]) -> str:
    """The quotient of medians and, in brackets, of the best rounds."""
    medians = statistics.median(rates) / statistics.median(with_others)
    return f"{medians:.2f} ({max(rates) / max(with_others):.2f})"


def shown(rates: Mapping[str, list[float]]) -> str:
    """The medians of rates."""
    return ", ".join(f"{name} {statistics.median(found):.2f} clips/s" for name, found in rates.items())


def against_bare(paths: Mapping[int, list[Path]], options: argparse.Namespace) -> None:
    """Prints what the stream costs beside decoding."""
    data = wanted(options.workers)
    for gop, files in paths.items():
        dataset = dataset_of(files, options.clips)
        listed = asks(data, dataset, options.clips)
        rates: dict[str, list[float]] = {"stream": [], "bare": []}
        of_processor: dict[str, list[float]] = {"stream": [], "bare": []}
        for _ in range(options.rounds):
            for name in rates:
                started = time.process_time()
                if name == "stream":
                    rates[name].append(stream_rate(data, dataset, options.clips))
                else:
                    rates[name].append(bare_rate(listed, HEIGHT, WIDTH, options.workers))
                of_processor[name].append(options.clips / (time.process_time() - started))
        print(
            f"GOP {gop}: stream / bare = {compared(rates['stream'], rates['bare'])}, by processor time "
            f"{compared(of_processor['stream'], of_processor['bare'])}; {shown(rates)}"
        )


def against_seed(paths: Mapping[int, list[Path]], options: argparse.Namespace) -> None:
    """Prints what is gained over whole clips."""
    data, shape = wanted(options.workers), (FRAMES, HEIGHT, WIDTH)
    for gop, files in paths.items():
        dataset = dataset_of(files, options.clips)
        ways: dict[str, Callable[[], float]] = {
            "stream": partial(stream_rate, data, dataset, options.clips),
            "seed": partial(seed_rate, files, options.clips, shape, options.workers),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        peaks: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                rate, peak = alone(way)
                rates[name].append(rate)
                peaks[name].append(peak)
        ours, theirs = (statistics.median(found) for found in peaks.values())
        gain = f"{compared(rates['stream'], rates['seed'])}, memory {ours / theirs:.2f}"
        print(f"GOP {gop}: stream / seed = {gain}; {shown(rates)}; {ours:,.0f} and {theirs:,.0f} MiB")


def waits(paths: Mapping[int, list[Path]], options: argparse.Namespace) -> None:
    """Prints how long a sleeping model waits."""
    data = wanted(options.workers)
    for gop, files in paths.items():
        dataset = dataset_of(files, options.clips)
        listed = asks(data, dataset, options.clips)
        rates = [bare_rate(listed, HEIGHT, WIDTH, options.workers) for _ in range(options.rounds)]
        bare = statistics.median(rates)
        pause = data.batch_size / (0.9 * bare)
        waited = 0.0
        steps = options.clips // data.batch_size
        with stream(data, dataset, seed=0, end_step=steps) as batches:
            next(batches)  # The first one comes when it comes.
            for _ in range(1, steps):
                time.sleep(pause)
                started = time.perf_counter()
                next(batches)
                waited += time.perf_counter() - started
        total = waited + (steps - 1) * pause
        print(f"GOP {gop}: waited {waited / total:.2%} of the time, at {0.9 * bare:.2f} clips/s")


def flat(folder: Path, clips: int) -> None:
    """Small clips, each decoded and thrown away."""
    paths = write_clips(folder, "small", count=10, size=(64, 64), frames=9, gop=9)
    data = attrs.evolve(wanted(2), num_frames=9, height=64, width=64, batch_size=10, start=ClipStart.HEAD)
    dataset = dataset_of(paths, clips)
    early = 0.0
    with stream(data, dataset, seed=0, end_step=clips // 10, load=partial(load_clip, data=data)) as batches:
        for batch in batches:
            if batch.step == clips // 100:
                early = resident() / MIB
        late = resident() / MIB
    print(f"{early:,.1f} MiB after {clips // 10:,} clips, {late:,.1f} MiB after {clips:,}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flat", type=int, default=10_000)
    parser.add_argument("--only", default="bare,seed,wait,flat")
    options = parser.parse_args()
    only = options.only.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths: dict[int, list[Path]] = {}
        if {"bare", "seed", "wait"} & set(only):
            for gop in GOPS:
                paths[gop] = write_clips(folder, f"gop{gop}", count=2, size=(720, 1280), frames=240, gop=gop)
        if "bare" in only:
            against_bare(paths, options)
        if "seed" in only:
            against_seed(paths, options)
        if "wait" in only:
            waits(paths, options)
        if "flat" in only:
            flat(folder, options.flat)


if __name__ == "__main__":
    main()
