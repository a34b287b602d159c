"""torch's distributed checkpoints (`.metadata` and `.distcp` files), read without running their pickles.

torch reads `.metadata` by plain `pickle.load`, which executes what the file says. Here the names of torch's
own metadata classes stand for records of data, made of nothing but what was stored; any other name is
refused.
"""

from __future__ import annotations

import math
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mm_config.durable import open_regular
from mm_config.schema import Problem, UserError
from mm_models.dtypes import DTYPES
from mm_models.weights.pickle_sizes import require_small
from mm_models.weights.pickled import load_tensor
from mm_models.weights.tensors import Piece, Region, StoredTensor

METADATA = ".metadata"
_CHECKPOINT = "torch.distributed.checkpoint"


class Record:
    """An instance of one of torch's metadata classes, as the values that were stored of it."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Metadata(Record): ...


class MetadataIndex(Record): ...


class TensorStorage(Record): ...


class BytesStorage(Record): ...


class Chunk(Record): ...


class Properties(Record): ...


class StorageMeta(Record): ...


class StorageInfo(Record): ...


def _text(*parts: str) -> str:
    return "/".join(parts)


_ALLOWED: dict[tuple[str, str], Any] = {
    (f"{_CHECKPOINT}.metadata", "Metadata"): Metadata,
    (f"{_CHECKPOINT}.metadata", "MetadataIndex"): MetadataIndex,
    (f"{_CHECKPOINT}.metadata", "TensorStorageMetadata"): TensorStorage,
    (f"{_CHECKPOINT}.metadata", "BytesStorageMetadata"): BytesStorage,
    (f"{_CHECKPOINT}.metadata", "ChunkStorageMetadata"): Chunk,
    (f"{_CHECKPOINT}.metadata", "TensorProperties"): Properties,
    (f"{_CHECKPOINT}.metadata", "StorageMeta"): StorageMeta,
    (f"{_CHECKPOINT}.metadata", "_MEM_FORMAT_ENCODING"): int,
    (f"{_CHECKPOINT}.filesystem", "_StorageInfo"): StorageInfo,
    ("torch", "Size"): tuple,
    ("torch.serialization", "_get_layout"): str,
    ("pathlib", "PosixPath"): _text,
    ("pathlib._local", "PosixPath"): _text,
    ("collections", "OrderedDict"): dict,
    **{("torch", str(dtype).removeprefix("torch.")): dtype for dtype in DTYPES.values()},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"names {module_name}.{global_name}, which is never loaded")
        return _ALLOWED[module_name, global_name]


def read_torch_dcp(folder: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors of a distributed checkpoint, and the names of its entries that are no tensors.

    Raises:
        UserError: The metadata is damaged, names anything but metadata, or leads to files outside the folder
            or that are missing.
    """
    path = folder / METADATA
    try:
        with open_regular(path) as file:
            require_small(file)
            file.seek(0)
            state = _Unpickler(file).load().state
        stored = {
            (index.state["fqn"], tuple(index.state.get("offset") or ())): info.state
            for index, info in state["storage_data"].items()
        }
        entries = state["state_dict_metadata"]
        others = [name for name, entry in entries.items() if not isinstance(entry, TensorStorage)]
        tensors = {
            name: _tensor(folder, name, entry.state, stored)
            for name, entry in entries.items()
            if isinstance(entry, TensorStorage)
        }
    except UserError:
        raise
    except Exception as error:  # A damaged pickle raises anything.
        message = f"is no metadata of a distributed checkpoint: {type(error).__name__}: {error}"
        raise UserError(Problem(str(path), message)) from error
    return tensors, others


def _tensor(
    folder: Path, name: str, entry: dict[str, Any], stored: dict[Any, dict[str, Any]]
) -> StoredTensor:
    dtype = entry["properties"].state[0]
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name} has no dtype")
    whole = tuple(entry["size"])
    pieces = []
    for chunk in entry["chunks"]:
        offsets, sizes = tuple(chunk.state["offsets"]), tuple(chunk.state["sizes"])
        bounds = zip(offsets, sizes, whole, strict=True)
        if not all(0 <= start <= start + size <= end for start, size, end in bounds):
            raise ValueError(f"{name} is {whole}; no part of it is {sizes} from {offsets} on")
        info = stored[name, offsets]
        file = folder / info["relative_path"]
        if file.parent != folder or not file.is_file():
            where = "is missing" if file.parent == folder else "is outside the folder"
            raise UserError(
                Problem(str(folder / METADATA), f"{name} is in {info['relative_path']}, which {where}")
            )
        if info.get("transform_descriptors"):
            raise UserError(Problem(str(file), f"{name} is compressed, which is not supported"))
        place = int(info["offset"]), int(info["length"])
        held = file.stat().st_size - place[0]
        if not place[0] >= 0 or not math.prod(sizes) * dtype.itemsize <= place[1] <= held:
            raise ValueError(
                f"{name} is {sizes} {dtype}, which is not in {place[1]} bytes from {place[0]} on"
            )
        copy = partial(_copy, file, name, place, sizes, dtype)
        pieces.append(Piece(offsets, sizes, copy, (str(file), place[0])))
    return StoredTensor(whole, dtype, tuple(pieces))


def _copy(
    file: Path,
    name: str,
    place: tuple[int, int],
    sizes: tuple[int, ...],
    dtype: torch.dtype,
    region: Region,
    out: Tensor,
) -> None:
    with file.open("rb") as opened:
        opened.seek(place[0])
        content = opened.read(place[1])
    try:
        tensor = load_tensor(content)
    except ValueError as error:
        raise UserError(Problem(str(file), f"{name} can't be read: {error}")) from error
    if tuple(tensor.shape) != sizes or tensor.dtype != dtype:
        found = f"{tuple(tensor.shape)} {tensor.dtype}"
        raise UserError(Problem(str(file), f"{name} is {found}, the metadata says {sizes} {dtype}"))
    out.copy_(tensor[region])
