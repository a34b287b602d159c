"""Saving, copying, loading and resharding a training's state, against torch's distributed checkpoint.

    python benchmarks/checkpoint.py [--gb 1] [--ranks 2] [--rounds 5] [--folder DIR]

The state is a network's weights, as FSDP2 shards them, and the two moments of AdamW. In every round the ways
take turns on the same tensors: torch's `save` with its own writer, which syncs its files and hashes nothing;
our `states.save`, which asks whether all is finite, writes digests, syncs and renames; our asynchronous save,
whose stall is timed and whose write is waited for; torch's `load` and ours, which checks every block that it
reads; and, of both, a load on half the ranks of what all of them wrote. Files are in the page cache where
they are read. Times are those of the slowest rank; ratios are of medians and, in brackets, of the fastest.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from comparing import ratio
from loading import network_spec, sharded
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_by_torch
from torch.distributed.checkpoint.state_dict_saver import save as save_by_torch
from torch.optim import AdamW

import mm_models
from experiments import tiny_high
from mm_config import replace
from mm_config.specs import TrainSpec
from mm_config.specs.wan import WanTransformerSpec
from mm_models.ranks import Ranks
from mm_train import states
from mm_train.optim import make_moments, named_moments
from mm_train.saving import Saving
from mm_train.states import TrainState

STATE = {"digest": "", "step": 0}
Times = dict[str, list[float]]
"""Seconds of each way by round; the first round is left out of ratios, its buffers are new."""


class Bench:
    """A state on this rank, and the ways to write and read it."""

    def __init__(self, spec: WanTransformerSpec, folder: Path) -> None:
        self.folder = folder
        self.ranks = Ranks(dist.get_rank(), dist.get_world_size(), grouped=True)
        self.network = sharded(spec)
        mm_models.initialize(self.network, 0)
        self.optimizer = AdamW(self.network.parameters(), fused=True)
        make_moments(self.network, self.optimizer, 1)
        kept = {"checkpoint.keep_last": 1_000, "checkpoint.asynchronous": True}
        self.spec: TrainSpec = replace(tiny_high.SPEC, kept)
        self.saving = Saving(folder / "beside", self.spec, self.ranks)
        self.step = 0

    def tensors(self) -> dict[str, Any]:
        """As torch's checkpoint takes them."""
        moments = named_moments(self.network, self.optimizer)
        return {"model": self.network.state_dict(), "optimizer": moments}

    def timed(self, act: Callable[[], object]) -> tuple[float, float]:
        """Seconds that pass, and those of the processors, once all ranks have come here."""
        dist.barrier()
        begun, worked = time.perf_counter(), time.process_time()
        act()
        return time.perf_counter() - begun, time.process_time() - worked

    def saves(self) -> dict[str, tuple[float, float]]:
        """A round of saves, each into a new place; what the others left is removed before."""
        self.step += 1
        dist.barrier()
        if self.ranks.is_first:
            for path in self.folder.glob("*/*" if self.step > 1 else "nothing"):
                shutil.rmtree(path)
        dist.barrier()
        state = TrainState(self.step, STATE, 0.0)
        parts = self.network, self.optimizer, state
        writer = FileSystemWriter(self.folder / "torch" / str(self.step))
        save, beside = states.save, self.saving
        return {
            "save by torch": self.timed(lambda: save_by_torch(self.tensors(), storage_writer=writer)),
            "save": self.timed(lambda: save(self.folder / "ours", self.spec, *parts, self.ranks)),
            "stall": self.timed(lambda: beside.save(*parts, {}, [])),
            "written beside": self.timed(beside.settle),
        }

    def loads(self) -> dict[str, tuple[float, float]]:
        """A round of loads."""
        (theirs,), (ours,) = ([*(self.folder / who).iterdir()] for who in ("torch", "ours"))
        reader, tensors = FileSystemReader(theirs), self.tensors()
        return {
            "load by torch": self.timed(lambda: load_by_torch(tensors, storage_reader=reader)),
            "load": self.timed(lambda: states.restore(ours, self.network, self.optimizer)),
        }


def take(rank: int, ranks: int, about: str, spec: WanTransformerSpec, folder: Path, options: Any) -> None:
    """Rounds on one rank; its seconds are written beside the checkpoints."""
    torch.set_num_threads(1)
    store = f"file://{folder / f'store-{about}'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    bench = Bench(spec, folder)
    found = []
    for _ in range(options.rounds):
        saved = bench.saves() if about == "same ranks" else {}
        found.append({**saved, **bench.loads()})
    (folder / f"{about}-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def measured(ranks: int, about: str, folder: Path, *arguments: Any) -> tuple[Times, Times]:
    """Of each way by round: the seconds of the slowest rank, and the processors' in all ranks."""
    taken = (ranks, about, *arguments[:1], folder, *arguments[1:])
    mp.start_processes(take, args=taken, nprocs=ranks, start_method="fork")  # type: ignore[attr-defined]
    of_ranks = [json.loads((folder / f"{about}-{rank}.json").read_text()) for rank in range(ranks)]
    rounds = list(zip(*of_ranks, strict=True))
    passed = {way: [max(one[way][0] for one in found) for found in rounds] for way in of_ranks[0][0]}
    worked = {way: [math.fsum(one[way][1] for one in found) for found in rounds] for way in of_ranks[0][0]}
    return passed, worked


def told(times: tuple[Times, Times]) -> None:
    """Prints times, then ratios of both kinds."""
    passed, worked = times
    for way in passed:
        work = statistics.median(worked[way])
        print(f"  {way:15} {statistics.median(passed[way]):.3f} s, of the processors {work:.3f} s")
    for way, other in (("save", "save by torch"), ("stall", "save"), ("load", "load by torch")):
        if way in passed:
            both = " and ".join(ratio(found[way][1:], found[other][1:]) for found in times)
            print(f"  {way} / {other}: {both} of the processors")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Checkpoints against torch's.")
    parser.add_argument("--gb", type=float, default=1.0, help="GB of the state, as float32")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the checkpoints are written")
    options = parser.parse_args()
    spec = network_spec(options.gb / 3)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for who in ("torch", "ours", "beside"):
            (folder / who).mkdir()
        print(f"{12 * spec.parameter_count() / 1e9:.2f} GB of state on {options.ranks} ranks")
        told(measured(options.ranks, "same ranks", folder, spec, options))
        if (other := options.ranks // 2) >= 1:
            print(f"loaded on {other} ranks")
            told(measured(other, "resharded", folder, spec, options))


if __name__ == "__main__":
    main()
