"""Loading safetensors into FSDP2 shards, against plain reads of the same files: time and memory.

    python benchmarks/loading.py [--gb 2] [--ranks 2] [--rounds 5] [--cold] [--folder DIR]

In every round three turns follow one another, each in processes of its own: the load; a plain read of every
byte by rank 0 alone; and one in which each rank reads its share. All of them read into new memory. Medians of
the rounds are compared: of the time that passed, and of the processors' time in all ranks together, which
other work on the machine changes less. The files are in the page cache; with --cold they are pushed out of it
before each turn. Memory is what a rank's process grew by at its peak.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import mm_models
from mm_config.families import wan21
from mm_config.specs.wan import WanTransformerSpec

TURNS = {
    "load": "load                       ",
    "file": "plain read by one process  ",
    "share": "plain read by every rank   ",
}
FILE_BYTES = 500_000_000


def network_spec(gigabytes: float) -> WanTransformerSpec:
    """Wan 1.3B with as many blocks as make the size in float32."""
    model = wan21.T2V_1_3B.model
    assert isinstance(model, WanTransformerSpec)
    one, two = (attrs.evolve(model, num_layers=layers).parameter_count() for layers in (1, 2))
    layers = round((gigabytes * 1e9 / 4 - (2 * one - two)) / (two - one))
    return attrs.evolve(model, num_layers=max(1, layers))


def write(spec: WanTransformerSpec, folder: Path) -> None:
    """Safetensors of about FILE_BYTES with their index."""
    part: dict[str, Tensor] = {}
    placed: dict[str, str] = {}
    names = list(spec.parameter_shapes())
    for name, shape in spec.parameter_shapes().items():
        part[name] = torch.randn(shape)
        if name == names[-1] or sum(value.nbytes for value in part.values()) > FILE_BYTES:
            file = f"model-{len(set(placed.values()))}.safetensors"
            save_file(part, folder / file)
            placed |= dict.fromkeys(part, file)
            part = {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))


def read(folder: Path, rank: int, ranks: int) -> list[Tensor]:
    """A rank's share of every file's bytes, read into new memory."""
    kept = []
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        start, stop = size * rank // ranks, size * (rank + 1) // ranks
        kept.append(torch.empty(stop - start, dtype=torch.uint8))
        missing = kept[-1].numpy().data
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while missing:
                missing = missing[file.readinto(missing) :]
    return kept


def sharded(spec: WanTransformerSpec) -> nn.Module:
    """The network with memory for this rank's shards, none of which is touched yet."""
    network = mm_models.build(spec, "meta")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in network.blocks:  # type: ignore[union-attr]
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network.to_empty(device="cpu")


def take(rank: int, turn: str, spec: WanTransformerSpec, folder: Path, ranks: int) -> None:
    """One turn on one rank; its seconds and the bytes it grew by are written beside the files."""
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    network = sharded(spec)  # In every turn, so that each begins as long after the one before.
    dist.barrier()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # The peak counts from here.
    started, worked = time.perf_counter(), time.process_time()
    kept: Any = None
    if turn == "load":
        mm_models.load(network, folder)
    elif turn == "share":
        kept = read(folder, rank, ranks)
    elif rank == 0:
        kept = read(folder, 0, 1)
    worked = time.process_time() - worked
    dist.barrier()
    passed = time.perf_counter() - started
    found = {"seconds": passed, "worked": worked, "bytes": memory("VmHWM") - before}
    (folder / f"{turn}-{rank}.json").write_text(json.dumps(found))
    del kept
    dist.destroy_process_group()


def memory(name: str) -> int:
    """`VmRSS` or its peak `VmHWM` of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def push_out(folder: Path) -> None:
    """Drops the files from the page cache."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(spec: WanTransformerSpec, folder: Path, options: argparse.Namespace) -> None:
    """Takes all turns and prints what they show."""
    seconds: dict[str, list[float]] = {turn: [] for turn in TURNS}
    worked: dict[str, list[float]] = {turn: [] for turn in TURNS}
    grown, turns = 0, list(TURNS)
    for index in range(options.rounds):
        for turn in turns[index % 3 :] + turns[: index % 3]:
            (folder / "store").unlink(missing_ok=True)
            if options.cold:
                push_out(folder)
            arguments = (turn, spec, folder, options.ranks)
            mp.start_processes(  # type: ignore[attr-defined]
                take, args=arguments, nprocs=options.ranks, start_method="fork"
            )
            files = [folder / f"{turn}-{rank}.json" for rank in range(options.ranks)]
            found = [json.loads(file.read_text()) for file in files]
            seconds[turn].append(max(one["seconds"] for one in found))
            worked[turn].append(sum(one["worked"] for one in found))
            grown = max(grown, *(one["bytes"] for one in found)) if turn == "load" else grown
    cached = "pushed out of the page cache" if options.cold else "in the page cache"
    size = 4 * spec.parameter_count()
    print(f"{size / 1e9:.2f} GB {cached}, {options.ranks} ranks, torch {torch.__version__}")
    for turn, about in TURNS.items():
        passed, work = statistics.median(seconds[turn]), statistics.median(worked[turn])
        ratios = f"{statistics.median(seconds['load']) / passed:.2f}x and "
        ratios += f"{statistics.median(worked['load']) / work:.2f}x"
        versus = "" if turn == "load" else f"; the load takes {ratios}"
        print(f"{about}  {passed:.2f} s, of the processors {work:.2f} s{versus}")
    shard, largest = size / options.ranks, 4 * max(map(math.prod, spec.parameter_shapes().values()))
    limit = 1.1 * shard + largest
    print(f"a rank's peak memory         {grown / 1e6:.0f} MB, {grown / shard:.3f}x its shard")
    print(f"1.1x its shard and a tensor  {limit / 1e6:.0f} MB")


def main() -> None:
    """Writes the files, and measures."""
    parser = argparse.ArgumentParser(description="Loading into shards against plain reads.")
    parser.add_argument("--gb", type=float, default=2.0, help="GB of weights, as float32")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="push the files out of the page cache first")
    parser.add_argument("--folder", type=Path, help="where the files are written")
    options = parser.parse_args()
    spec = network_spec(options.gb)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        # In a process of its own: what it frees would be memory that the ranks need not grow by.
        writer = mp.get_context("fork").Process(target=write, args=(spec, Path(folder)))
        writer.start()
        writer.join()
        measure(spec, Path(folder), options)


if __name__ == "__main__":
    main()
