"""Shards that ranks write: the tensors of the files that torch's distributed checkpoint writes of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import Placement

from mm_models import checkpoint
from mm_models.shards import own_shards, write_shards
from mm_models.weights.layouts import read_group
from tests.forked_ranks import RunRanks

SHAPES = {"even": (6, 5), "uneven": (7, 2), "short": (1, 6, 4), "vector": (9,), "row": (2, 8)}
DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.float64)


def whole(name: str) -> Tensor:
    torch.manual_seed(len(name) + ord(name[0]))
    return torch.randn(SHAPES[name]).mul_(50).to(DTYPES[list(SHAPES).index(name)])


def named(placements: tuple[Placement, ...], sizes: tuple[int, ...]) -> dict[str, Tensor]:
    mesh = init_device_mesh("cpu", sizes)
    names = [name for name, shape in SHAPES.items() if len(shape) >= len(sizes)]
    return {name: distribute_tensor(whole(name), mesh, placements) for name in names}


def plain() -> dict[str, Tensor]:
    """What all ranks have alike."""
    return {"first": torch.arange(5.0), "scalar": torch.tensor(7.0), "last": torch.ones(2, 2)}


def content(path: Path) -> dict[str, tuple[object, ...]]:
    """What a file says of each tensor."""
    with safe_open(path, framework="pt") as file:
        begins = json.loads(file.metadata()["DCP_SHARDING_INFO"])
        assert file.metadata()["format"] == "pt"
    return {
        name: (tensor.dtype, tensor.shape, tensor.view(-1).view(torch.uint8).tolist(), begins[name])
        for name, tensor in load_file(path).items()
    }


def _as_torch(rank: int, folder: Path) -> None:
    groups = {"model": named((Shard(0),), (2,)), "clipping": plain()}
    checkpoint.save(folder / "ours", groups, {})
    for group, tensors in groups.items():
        writer = HuggingFaceStorageWriter(str(folder / "torch" / group), save_distributed=True)
        save(tensors, storage_writer=writer)


def test_two_ranks_write_the_tensors_and_names_of_files_that_torch_writes(
    tmp_path: Path, run_ranks: RunRanks
) -> None:
    run_ranks(_as_torch, tmp_path)
    ours, theirs = (
        {path.relative_to(tmp_path / who): content(path) for path in (tmp_path / who).rglob("*.safetensors")}
        for who in ("ours", "torch")
    )
    assert len(ours) == 4
    assert ours == theirs


def _all_ways(rank: int, folder: Path) -> None:
    ways = {
        "copies": ((Replicate(), Shard(0)), (2, 2)),
        "whole": ((Replicate(),), (4,)),
        "columns": ((Shard(0), Shard(1)), (2, 2)),
    }
    for way, (placements, sizes) in ways.items():
        tensors = named(placements, sizes)
        checkpoint.save(folder / way, {"model": tensors}, {})
        mine = sum(shard.values.nbytes for shard in own_shards(tensors))
        given = [torch.zeros(1, dtype=torch.int64) for _ in range(4)]
        dist.all_gather(given, torch.tensor([mine]))
        total = sum(whole(name).nbytes for name in tensors)
        assert sum(map(int, given)) == total, way
        assert max(map(int, given)) < total / 2, way  # They divide what several hold.


def test_each_value_is_written_once_whatever_ranks_hold_alike(tmp_path: Path, run_ranks: RunRanks) -> None:
    run_ranks(_all_ways, tmp_path, ranks=4)
    for way in ("copies", "whole", "columns"):
        stored = read_group(tmp_path / way, "model")
        assert stored.keys() == {*SHAPES} - ({"vector"} if way != "whole" else set())
        for name, one in stored.items():
            assert torch.equal(one.read(), whole(name)), (way, name)
            assert one.is_whole


def test_a_file_is_the_same_each_time_and_its_entry_tells_its_bytes(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(3, 4),
        "a": torch.randn(4, 3).T,
        "none": torch.empty(0, 2),
        "i": torch.arange(3),
    }
    first, second = (write_shards(tmp_path / name, own_shards(tensors)) for name in ("first", "second"))
    assert first == second
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert first["sha256"] == hashlib.sha256((tmp_path / "first").read_bytes()).hexdigest()
    assert all(torch.equal(tensors[name], one) for name, one in load_file(tmp_path / "first").items())
    with pytest.raises(FileExistsError):
        write_shards(tmp_path / "first", own_shards(tensors))
