"""Writes weights: safetensors tensor by tensor, and MindSpeed-MM's release."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from mm_config.durable import synced_file
from mm_config.schema import Problem, UserError
from mm_models.blocks import Digester, entry_of
from mm_models.dtypes import DTYPE_NAMES
from mm_models.shards import raw_bytes
from mm_models.weights.tensors import StoredTensor


@attrs.frozen
class Item:
    """A tensor to write."""

    name: str
    """As it will be written."""
    stored: StoredTensor
    """Where its values lie."""
    dtype: torch.dtype
    """That is written."""

    @property
    def bytes(self) -> int:
        """Its size as it will be written."""
        return self.stored.bytes // self.stored.dtype.itemsize * self.dtype.itemsize

    def read(self) -> Tensor:
        """Its values, contiguous, in the dtype that is written.

        Raises:
            UserError: A value is beyond the dtype's range.
        """
        values = self.stored.read()
        cast = values.to(self.dtype).contiguous()
        if (
            torch.finfo(self.dtype).max < torch.finfo(values.dtype).max
            and (cast.isinf() & ~values.isinf()).any()
        ):
            limit = torch.finfo(self.dtype).max
            raise UserError(Problem(self.name, f"holds values beyond {limit:g}, the largest of {self.dtype}"))
        return cast


def write_sharded(
    folder: Path, items: Sequence[Item], shard_bytes: int, stem: str, tick: Callable[[], None]
) -> dict[str, dict[str, Any]]:
    """Writes safetensors files into a folder, with an index where there are several.

    One tensor at a time is in memory.

    Args:
        folder: Exists.
        items: In the order in which they will lie.
        shard_bytes: No file is larger, except one that holds a single tensor.
        stem: What the files' names begin with.
        tick: Called after each tensor.

    Returns:
        What a manifest says of each file, by name.
    """
    shards = list(_shards(items, shard_bytes))
    names = [
        f"{stem}-{index:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else f"{stem}.safetensors"
        for index in range(1, len(shards) + 1)
    ]
    written = {
        name: _write_file(folder / name, shard, tick) for name, shard in zip(names, shards, strict=True)
    }
    if len(shards) > 1:
        places = {item.name: name for name, shard in zip(names, shards, strict=True) for item in shard}
        total = sum(item.bytes for item in items)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        name = f"{stem}.safetensors.index.json"
        written[name] = write_json(folder / name, index)
    return written


def write_json(path: Path, value: Any) -> dict[str, Any]:
    """Writes JSON onto the disk; returns what a manifest says of it."""
    with synced_file(path) as file:
        file.write((json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
    return entry_of(path)


def write_release(folder: Path, items: Sequence[Item], tick: Callable[[], None]) -> None:
    """Writes a release of MindSpeed-MM without pipeline stages; the whole network is in memory."""
    place = folder / "release" / "mp_rank_00"
    place.mkdir(parents=True)
    model: dict[str, Tensor] = {}
    for item in items:
        model[item.name] = item.read()
        tick()
    with synced_file(place / "model_optim_rng.pt") as file:
        torch.save({"model": model, "checkpoint_version": 3.0}, file)
    with synced_file(folder / "latest_checkpointed_iteration.txt") as file:
        file.write(b"release")


def _shards(items: Sequence[Item], shard_bytes: int) -> Iterator[list[Item]]:
    shard: list[Item] = []
    size = 0
    for item in items:
        if shard and size + item.bytes > shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(item)
        size += item.bytes
    yield shard


def _write_file(path: Path, items: Sequence[Item], tick: Callable[[], None]) -> dict[str, Any]:
    """One safetensors file: the header's length in 8 bytes, the header, the tensors one after another."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    # Wider dtypes first keep every tensor aligned to its own width.
    items = sorted(items, key=lambda item: -item.dtype.itemsize)
    for item in items:
        start, end = end, end + item.bytes
        entry = {"dtype": DTYPE_NAMES[item.dtype], "shape": item.stored.shape, "data_offsets": (start, end)}
        header[item.name] = entry
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digester = Digester()
    with synced_file(path) as file:

        def put(content: bytes | memoryview) -> None:
            digester.update(content)
            file.write(content)

        put(len(text).to_bytes(8, "little"))
        put(text)
        for item in items:
            put(raw_bytes(item.read()))
            tick()
    return digester.entry()
