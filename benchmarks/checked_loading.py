"""Loading our checkpoints with digests of blocks, against the same without and against plain reads.

    python benchmarks/checked_loading.py [--gb 2] [--ranks 2] [--rounds 7] [--folder DIR]

As many processes as load wrote the checkpoint, each its shard. In every round the turns follow one another,
each in processes of its own: the load with its checks; the same load without digests; a plain read, in which
each rank reads the bytes of its own file, one tensor after another, into the memory that the load fills; one
into a single buffer at once; one by the library safetensors; and one into a single buffer with a sha256. All
of them read into new memory, from the page cache, and what they import is imported before. Ratios to the
plain read are medians of those within each round and, in brackets, of the fastest rounds: of the time that
passed, and of the time of the processors, user and system, in all ranks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from loading import network_spec, sharded
from safetensors.torch import load_file

import mm_models
from mm_config.specs.wan import WanTransformerSpec
from mm_models import checkpoint
from mm_models.shards import raw_bytes
from mm_models.weights.published import published

TURNS = {
    "checked": "load with digests of blocks ",
    "unchecked": "the same load without       ",
    "plain": "plain read by every rank    ",
    "buffer": "plain read into one buffer  ",
    "library": "read by safetensors         ",
    "sha256": "plain read and its sha256   ",
}
STEP = "step-00000001"


def joined(rank: int, folder: Path, ranks: int) -> None:
    """Brings the ranks together."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=ranks)


def write(rank: int, spec: WanTransformerSpec, folder: Path, ranks: int) -> None:
    """Writes the checkpoint, one file of safetensors by each rank."""
    joined(rank, folder, ranks)
    network = sharded(spec)
    mm_models.initialize(network, 0)
    checkpoint.save(folder / STEP, {"model": network.state_dict()}, {"step": 1})
    dist.destroy_process_group()


def read(path: Path, is_hashed: bool) -> torch.Tensor:
    """A file's bytes in new memory."""
    kept = torch.empty(path.stat().st_size, dtype=torch.uint8)
    missing, digest = kept.numpy().data, hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while missing:
            count = file.readinto(missing[: 2**18] if is_hashed else missing)
            if is_hashed:
                digest.update(missing[:count])
            missing = missing[count:]
    return kept


def read_into(tensors: list[torch.Tensor], path: Path) -> None:
    """A file's bytes in the memory of tensors, one after another."""
    with path.open("rb", buffering=0) as file:
        for tensor in tensors:
            missing = raw_bytes(tensor)
            while missing:
                missing = missing[file.readinto(missing) :]


def take(rank: int, turn: str, spec: WanTransformerSpec, folder: Path, ranks: int) -> None:
    """One turn on one rank; its seconds are written beside the checkpoint."""
    joined(rank, folder, ranks)
    network = sharded(spec)  # In every turn, so that each begins as long after the one before.
    if turn == "unchecked":
        checkpoint.require_group = lambda *_: {}  # type: ignore[assignment]
    tensors = [value.to_local() for value in network.state_dict().values()]
    own = sorted((folder / STEP / "model").iterdir())[rank]
    dist.barrier()
    started, worked = time.perf_counter(), time.process_time()
    kept: object = None
    if turn == "plain":
        read_into(tensors, own)
    elif turn in ("buffer", "sha256"):
        kept = read(own, turn == "sha256")
    elif turn == "library":
        kept = [value.clone() for value in load_file(own).values()]  # The file is mapped: a copy reads it.
    else:
        mm_models.load(network, folder / STEP)
    worked = time.process_time() - worked
    dist.barrier()
    found = {"seconds": time.perf_counter() - started, "worked": worked}
    (folder / f"{turn}-{rank}.json").write_text(json.dumps(found))
    del kept
    dist.destroy_process_group()


def in_ranks(act: object, folder: Path, ranks: int, *arguments: object) -> None:
    """Lets every rank do something."""
    (folder / "store").unlink(missing_ok=True)
    mp.start_processes(act, args=arguments, nprocs=ranks, start_method="fork")  # type: ignore[attr-defined]


def measure(spec: WanTransformerSpec, folder: Path, options: argparse.Namespace) -> None:
    """Takes all turns and prints what they show."""
    assert mm_models.load and published()  # They import what a load needs.
    in_ranks(write, folder, options.ranks, spec, folder, options.ranks)
    seconds: dict[str, list[float]] = {turn: [] for turn in TURNS}
    worked: dict[str, list[float]] = {turn: [] for turn in TURNS}
    turns = list(TURNS)
    for index in range(options.rounds):
        for turn in turns[index % len(turns) :] + turns[: index % len(turns)]:
            in_ranks(take, folder, options.ranks, turn, spec, folder, options.ranks)
            found = [
                json.loads((folder / f"{turn}-{rank}.json").read_text()) for rank in range(options.ranks)
            ]
            seconds[turn].append(max(one["seconds"] for one in found))
            worked[turn].append(sum(one["worked"] for one in found))
    print(f"{4 * spec.parameter_count() / 1e9:.2f} GB in the page cache, {options.ranks} ranks")
    for turn, about in TURNS.items():
        ratios = []
        for times in (seconds, worked):
            of_rounds = [one / plain for one, plain in zip(times[turn], times["plain"], strict=True)]
            best = min(times[turn]) / min(times["plain"])
            ratios.append(f"{statistics.median(of_rounds):.3f} ({best:.3f})")
        passed, work = statistics.median(seconds[turn]), statistics.median(worked[turn])
        print(
            f"{about}  {passed:.2f} s, of the processors {work:.2f} s; of a plain read {' and '.join(ratios)}"
        )


def main() -> None:
    """Writes the checkpoint, and measures."""
    parser = argparse.ArgumentParser(description="Loading with digests of blocks against plain reads.")
    parser.add_argument("--gb", type=float, default=2.0, help="GB of weights, as float32")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the checkpoint is written")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(network_spec(options.gb), Path(folder), options)


if __name__ == "__main__":
    main()
