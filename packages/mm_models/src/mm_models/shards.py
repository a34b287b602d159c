"""What a rank writes of named tensors: its shards, as one safetensors file.

The file is as torch's distributed checkpoint writes it: where a shard begins in its tensor stands in the
header, under `DCP_SHARDING_INFO`.
"""

from __future__ import annotations

import ctypes
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from mm_config.durable import synced_file
from mm_models.blocks import Digester
from mm_models.collectives import rank_and_world_size
from mm_models.dtypes import DTYPE_NAMES

Placing = Callable[..., tuple[tuple[int, ...], tuple[int, ...]]]
"""Sizes and offsets of a rank's part, from a whole shape, a mesh and placements."""
_UNHASHED = 2
"""Tensors that are written and not yet hashed, at most: they stay in the host's memory."""


@attrs.frozen(eq=False)
class Shard:
    """A rectangle of a tensor."""

    name: str
    """The tensor's."""
    offsets: tuple[int, ...]
    """Where it begins in the whole tensor."""
    values: Tensor
    """Its own values, on any device."""


def own_shards(tensors: Mapping[str, Tensor]) -> list[Shard]:
    """What this rank writes of tensors, plain or sharded, so that all ranks together write each value once.

    Of what several ranks hold alike, that one writes it that has the fewest bytes to write so far. No rank
    asks another: all know the shapes.
    """
    found: list[Shard] = []
    bytes_of: dict[Any, list[int]] = {}
    for name, tensor in tensors.items():
        group, copies, own = _copies(tensor)
        written = bytes_of.setdefault(group, [0] * copies)
        writer = written.index(min(written))
        written[writer] += tensor.numel() * tensor.dtype.itemsize
        if writer == own:
            values = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            offsets = tuple(axis.start for axis in own_region(tensor))
            found.append(Shard(name, offsets, values.detach()))
    return found


def own_region(target: Tensor, place: Placing = compute_local_shape_and_global_offset) -> tuple[slice, ...]:
    """The part of the whole tensor that this rank holds; an empty shard has none. `place` may remember."""
    if not isinstance(target, DTensor):
        return tuple(slice(0, size) for size in target.shape)
    sizes, offsets = place(target.shape, target.device_mesh, target.placements)
    return tuple(slice(start, start + size) for start, size in zip(offsets, sizes, strict=True))


def _copies(tensor: Tensor) -> tuple[object, int, int]:
    """Which ranks hold equal parts of a tensor, how many they are, and the place of this one among them."""
    if not isinstance(tensor, DTensor):
        own, copies = rank_and_world_size()
        return None, copies, own
    mesh, copies, own = tensor.device_mesh, 1, 0
    cut = {
        name
        for name, place in zip(mesh.mesh_dim_names or range(mesh.ndim), tensor.placements, strict=True)
        if not place.is_replicate()
    }
    # A parameter may be on some axes of all ranks': those along the others hold it alike.
    everyone = mesh._get_root_mesh()
    for axis, name in enumerate(everyone.mesh_dim_names or range(everyone.ndim)):
        if name not in cut:
            own = own * everyone.size(axis) + everyone.get_local_rank(axis)
            copies *= everyone.size(axis)
    return (everyone, frozenset(cut)), copies, own


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy; they keep it alive.

    numpy would pin the size of its memory down, and weights that wait give theirs back.
    """
    assert tensor.is_cpu and tensor.is_contiguous()
    content = (ctypes.c_uint8 * tensor.nbytes).from_address(tensor.data_ptr())
    content.of_tensor = tensor  # type: ignore[attr-defined]
    return memoryview(content).cast("B")


def write_shards(path: Path, shards: Iterable[Shard]) -> dict[str, Any]:
    """Writes a new file onto the disk; returns what a manifest says of it.

    Bytes are hashed by a thread of their own, from the memory that they were written from.

    Raises:
        OSError: It exists already, or can't be written.
    """
    # Wider dtypes first keep every tensor aligned to its own width.
    shards = sorted(shards, key=lambda shard: (-shard.values.dtype.itemsize, shard.name))
    text = _header(shards)
    digester, unhashed = Digester(), deque[Future[None]]()
    with ThreadPoolExecutor(1, "hash") as hashing, synced_file(path) as file:

        def put(content: bytes | memoryview) -> None:
            unhashed.append(hashing.submit(digester.update, content))
            if len(unhashed) > _UNHASHED:
                unhashed.popleft().result()
            file.write(content)

        put(len(text).to_bytes(8, "little") + text)
        for shard in shards:
            put(raw_bytes(shard.values.cpu().contiguous()))
    return digester.entry()


def _header(shards: Sequence[Shard]) -> bytes:
    begins = {shard.name: {"saved_offsets": shard.offsets} for shard in shards}
    notes = {"DCP_SHARDING_INFO": json.dumps(begins), "DCP_VERSION": "1.0", "format": "pt"}
    header: dict[str, Any] = {"__metadata__": notes}
    end = 0
    for shard in shards:
        start, end = end, end + shard.values.numel() * shard.values.dtype.itemsize
        dtype, sizes = DTYPE_NAMES[shard.values.dtype], tuple(shard.values.shape)
        header[shard.name] = {"dtype": dtype, "shape": sizes, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)
