"""What makes weights of `hostile_release` hostile: code, impossible sizes, names that lead outside."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.mm_models.hostile_texts import Case, Damage
from tests.mm_models.weight_files import T2V, values

SAFETENSORS = "transformer/diffusion_pytorch_model.safetensors"
PICKLED = (("pickled", "pickled/w.pt"), ("mindspeed", "release/mp_rank_00/model_optim_rng.pt"))
WEIGHTS = (
    ("transformer", SAFETENSORS),
    *PICKLED,
    ("dcp", "dcp/.metadata"),
    ("sharded", "sharded/part-1.safetensors"),
)
F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HEADERS: tuple[Any, ...] = (
    {"a": F32 | {"shape": [10**18]}},
    {"a": F32 | {"shape": [2**62, 4]}},
    {"a": F32 | {"shape": [-1]}},
    {"a": F32 | {"shape": "x"}},
    {"a": F32 | {"data_offsets": [0, 2**60]}},
    {"a": F32 | {"dtype": "EVIL"}},
    {"a": F32, "b": F32},
    {"a": 1},
    [],
    {"a": F32, "__metadata__": {"DCP_SHARDING_INFO": '{"a": {"saved_offsets": [-1]}}'}},
    {"a": F32, "__metadata__": {"DCP_SHARDING_INFO": "[" * 10**5}},
    {"a": F32, "__metadata__": {"DCP_SHARDING_INFO": "[]"}},
)


class Evil:
    """Makes a folder when it is unpickled by a loader that lets it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def weight_cases() -> Iterator[Case]:
    """Every damage of every kind of weights."""
    for door, file in WEIGHTS:
        for name, damage in _KINDS.items():
            yield Case(f"{name} {file}", door, partial(_replace, file, damage))
    for index, header in enumerate(HEADERS):
        text = json.dumps(header).encode()
        written = partial(_bytes, len(text).to_bytes(8, "little") + text + bytes(4))
        yield Case(f"header {index}", "transformer", partial(_replace, SAFETENSORS, written))
    for length in (2**60, 2**64 - 1, 0, 10**8 + 1):
        written = partial(_bytes, length.to_bytes(8, "little") + b"{}")
        yield Case(f"header of {length} bytes", "transformer", partial(_replace, SAFETENSORS, written))
    for door, file in PICKLED:
        for damage in (_terabytes, _code, _deep, _compressed, _itself, _object, _shared_in_zip):
            yield Case(f"{damage.__name__[1:]} {file}", door, partial(_at, file, damage))
        yield Case(f"shared {file}", door, partial(_replace, file, partial(_bytes, 5 * _shared(40))))
    for opcodes in _METADATA:
        yield Case(
            f"metadata {opcodes[:30]!r}", "dcp", partial(_replace, "dcp/.metadata", partial(_bytes, opcodes))
        )
    for word in ("../canary", "9" * 30, "release\0", "x" * 10**6):
        written = partial(_bytes, word.encode())
        tracker = "latest_checkpointed_iteration.txt"
        yield Case(f"tracker {word[:12]!r}", "mindspeed", partial(_replace, tracker, written))
    yield Case("pipeline stage 999999999", "mindspeed", _stage)


def _replace(file: str, write: Damage, folder: Path) -> None:
    (folder / file).unlink()
    write(folder / file)


def _at(file: str, write: Callable[[Path, Path], None], folder: Path) -> None:
    write(folder / file, folder.parent / "marker")


def _bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**36)


_KINDS: dict[str, Damage] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "empty": lambda path: path.touch(),
    "sparse": _sparse,
    "null": lambda path: path.symlink_to("/dev/null"),
}


def _shared(levels: int) -> bytes:
    """A pickle of a dictionary whose key is a tuple of one tuple twice, and so on: 2^levels parts."""
    pairs = b"".join(b"h%ch%c\x86q%c" % (level, level, level + 1) for level in range(levels))
    return b"\x80\x02](" + b")q\x00" + pairs + b"e}h%cK\x01s." % levels


_METADATA = (
    _shared(40),
    b"cos\nmkdir\n(Vx\ntR.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"\x80\x04K\x01r\xff\xff\xff\x7f.",
    b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",
    b"\x80\x04" + b"(" * 10**6 + b".",
    b"\x80\x04]" + b"]" * 10**5 + b"a" * 10**5 + b".",
)


def _terabytes(path: Path, _: Path) -> None:
    """Values of a whole network, each of which is one number, 4 TB apart by its strides."""
    tensors = {name: torch.zeros(1).expand(10**6, 10**6) for name in values(T2V)}
    torch.save({"model": tensors}, path)


def _code(path: Path, marker: Path) -> None:
    torch.save({"model": {**values(T2V), "x": Evil(marker)}}, path)


def _deep(path: Path, _: Path) -> None:
    nested: dict[str, Any] = values(T2V)
    for _level in range(200):
        nested = {"a": nested}
    torch.save({"model": nested}, path)


def _compressed(path: Path, _: Path) -> None:
    """A member of 4 GB of zeros, which deflate makes small."""
    bomb = path.with_suffix(".zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    shutil.move(bomb, path)


def _shared_in_zip(path: Path, _: Path) -> None:
    other = path.with_suffix(".zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for member in old.namelist():
            new.writestr(member, _shared(40) if member.endswith("data.pkl") else old.read(member))
    shutil.move(other, path)


def _itself(path: Path, _: Path) -> None:
    tensors: dict[str, Any] = values(T2V)
    tensors["a"] = tensors
    torch.save({"model": tensors}, path)


def _object(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps({"model": Evil(marker)}))


def _stage(folder: Path) -> None:
    (folder / "release/mp_rank_00_999999999").mkdir()
    save_file({"a": torch.zeros(1)}, folder / "release/mp_rank_00_999999999/model_optim_rng.pt")
