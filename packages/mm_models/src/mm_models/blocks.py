"""Digests of a file's blocks: made as its bytes are written, held against it as they are read.

Whoever reads a part of a file checks the blocks that it touches, each once, in the pass that reads it. The
digest of a block is xxh3_128: it finds accidents at the speed of memory, and no intent.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import attrs
from xxhash import xxh3_128

from mm_config.schema import Problem, UserError
from mm_models.naming import first_names

BLOCK_BYTES = 2**24
"""Of blocks that are written; a manifest names the size of its own."""
_CHUNK_BYTES = 2**20
"""What is read and then hashed: it lies in a core's cache in between."""
_SCRATCH_BYTES = 2**18
"""Of a buffer for what is read for its digest alone."""
_MADV_POPULATE_WRITE = 23
"""Of Linux 5.14 and later; `mmap` has no name for it."""


@attrs.frozen
class Blocks:
    """What a manifest says of a file."""

    folder: Path
    """Where the manifest lies."""
    name: str
    """The file's, from there."""
    size: int
    """In bytes."""
    block_bytes: int
    """Of every block but the last."""
    digests: Sequence[str]
    """Of each block, in order."""

    def end(self, index: int) -> int:
        """Where a block ends."""
        return min((index + 1) * self.block_bytes, self.size)

    def changed(self, indexes: Sequence[int]) -> str:
        """What is said of blocks that are not as they were written."""
        blocks = f"block{'s' if len(indexes) > 1 else ''} {first_names(str(one + 1) for one in indexes)}"
        where = f", in {blocks} of {len(self.digests)}, each of {self.block_bytes} bytes"
        return changed(self.name) + (where if len(self.digests) > 1 else "")


def changed(name: str) -> str:
    """What is said of a file that is not as it was written."""
    return f"{name} has changed since it was written"


def damaged(folder: Path, problems: Sequence[str]) -> UserError:
    """The refusal of a checkpoint."""
    return UserError(Problem(str(folder), f"is damaged: {'; '.join(problems[:10])}"))


class Digester:
    """Hashes the bytes of a file as they pass."""

    def __init__(self) -> None:
        self._sha256, self._size = hashlib.sha256(), 0
        self._blocks, self._block = list[str](), xxh3_128()

    def update(self, content: bytes | memoryview) -> None:
        """Takes the next bytes."""
        left = memoryview(content)
        while left:
            part = left[: min(len(left), _CHUNK_BYTES, BLOCK_BYTES - self._size % BLOCK_BYTES)]
            self._sha256.update(part)
            self._block.update(part)
            self._size, left = self._size + len(part), left[len(part) :]
            if self._size % BLOCK_BYTES == 0:
                self._blocks.append(self._block.hexdigest())
                self._block = xxh3_128()

    def entry(self) -> dict[str, Any]:
        """What a manifest says of the file: `bytes`, `sha256` and, of each block, `xxh3_128`."""
        last = [self._block.hexdigest()] if self._size % BLOCK_BYTES else []
        return {"bytes": self._size, "sha256": self._sha256.hexdigest(), "xxh3_128": self._blocks + last}


def entry_of(path: Path) -> dict[str, Any]:
    """A manifest's entry for a file. Raises OSError where it can't be read."""
    digester, chunk = Digester(), memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            digester.update(chunk[:count])
    return digester.entry()


class CheckedFile:
    """A file that is read in parts, in any order, and checked where its blocks' digests are known.

    Parts are fastest in order: a block is hashed as it passes into its place, and what lies between parts
    is read only for its digest. The end of the last block is read by `settle`.
    """

    def __init__(self, path: Path, blocks: Blocks | None = None) -> None:
        self.path, self._blocks = path, blocks
        self._checked: set[int] = set()
        self._index = -1  # The block that is passing, up to a position; -1 where none is.
        self._position, self._digest = 0, xxh3_128()

    def read(self, begin: int, out: memoryview, what: str) -> None:
        """Reads the bytes from a position on into a buffer's place.

        Raises:
            UserError: They can't be read, or a block that was read whole has changed since it was written;
                of the last block `settle` says so. `what` is named.
        """
        with self._opened(what) as file:
            while out:
                count = self._step(file, begin, out, what)
                begin, out = begin + count, out[count:]

    def check_start(self) -> None:
        """Checks the first block, before anything is made of what it says.

        Raises:
            UserError: It can't be read, or has changed since it was written.
        """
        if self._blocks is not None and self._blocks.size:
            self.read(0, memoryview(bytearray(1)), "its start")
            self.settle()

    def settle(self) -> None:
        """Reads the rest of the block that is passing.

        Raises:
            UserError: It can't be read, or has changed since it was written.
        """
        if self._index >= 0:
            with self._opened("the rest of a block") as file:
                self._finish(file)

    def _step(self, file: int, begin: int, out: memoryview, what: str) -> int:
        """Reads some of the bytes, at most to the end of their block; returns how many."""
        if (blocks := self._blocks) is None or begin >= blocks.size:
            self._fill(file, begin, out, what)
            return len(out)
        index = begin // blocks.block_bytes
        out = out[: blocks.end(index) - begin]
        if index not in self._checked:
            self._pass_to(file, index, begin)
        if index in self._checked:
            self._fill(file, begin, out, what)
        else:
            self._hash(file, out, what)
        return len(out)

    def _pass_to(self, file: int, index: int, begin: int) -> None:
        """Hashes what lies before a position in its block; a block that is past it is finished."""
        assert self._blocks is not None
        if index != self._index:
            self._finish(file)
            self._index, self._position = index, index * self._blocks.block_bytes
            self._digest = xxh3_128()
        if begin < self._position:
            self._finish(file)
        else:
            self._skip(file, begin)

    def _finish(self, file: int) -> None:
        if self._blocks is not None and self._index >= 0:
            self._skip(file, self._blocks.end(self._index))

    def _skip(self, file: int, until: int) -> None:
        if (left := until - self._position) > 0:
            scratch = memoryview(bytearray(min(_SCRATCH_BYTES, left)))
            while (left := until - self._position) > 0:
                self._hash(file, scratch[:left], "the rest of a block")

    def _hash(self, file: int, out: memoryview, what: str) -> None:
        """Reads on in the passing block, and compares its digest when it is whole."""
        assert self._blocks is not None
        for start in range(0, len(out), _CHUNK_BYTES):
            part = out[start : start + _CHUNK_BYTES]
            _populate(part)
            self._fill(file, self._position, part, what)
            self._digest.update(part)
            self._position += len(part)
        if self._position < self._blocks.end(self._index):
            return
        if self._digest.hexdigest() != self._blocks.digests[self._index]:
            raise damaged(self._blocks.folder, [self._blocks.changed([self._index])])
        self._checked.add(self._index)
        self._index = -1

    @contextmanager
    def _opened(self, what: str) -> Iterator[int]:
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield file
            finally:
                os.close(file)
        except OSError as error:
            raise UserError(Problem(str(self.path), f"{what} can't be read: {error.strerror}")) from error

    def _fill(self, file: int, begin: int, out: memoryview, what: str) -> None:
        while out:
            if not (count := os.preadv(file, [out], begin)):
                message = f"{what} can't be read: the file was cut short meanwhile"
                raise UserError(Problem(str(self.path), message))
            begin, out = begin + count, out[count:]


def _populate(out: memoryview) -> None:
    """Has the system give new memory its pages at once: a read that meets them one by one takes longer.

    Where it can't, the read does that. Memory whose last page is there has been used before: asking for its
    pages again would cost a sixth of reading them.
    """
    if sys.platform != "linux" or len(out) <= mmap.PAGESIZE:
        return
    address = ctypes.addressof(ctypes.c_char.from_buffer(out))
    end = address + len(out)
    begin, last = (ctypes.c_void_p(place - place % mmap.PAGESIZE) for place in (address, end - 1))
    there = ctypes.c_ubyte()
    if _libc().mincore(last, ctypes.c_size_t(1), ctypes.byref(there)) or not there.value & 1:
        _libc().madvise(begin, ctypes.c_size_t(end - (begin.value or 0)), _MADV_POPULATE_WRITE)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def changed_blocks(path: Path, blocks: Blocks) -> list[int]:
    """The blocks of a file that are not as they were written. Raises OSError where it can't be read."""
    found: list[int] = []
    chunk = memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        for index, written in enumerate(blocks.digests):
            digest, left = xxh3_128(), blocks.end(index) - index * blocks.block_bytes
            while left and (count := file.readinto(chunk[:left])):
                digest.update(chunk[:count])
                left -= count
            if left or digest.hexdigest() != written:
                found.append(index)
    return found
