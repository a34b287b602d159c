"""Digests of blocks: whoever reads a part of a file checks what it touches, in the pass that reads it."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from xxhash import xxh3_128_hexdigest

from mm_config.schema import UserError
from mm_models import blocks
from mm_models.blocks import Blocks, CheckedFile, changed_blocks, entry_of
from mm_models.weights.filling import fill
from mm_models.weights.safetensors_files import read_files

SIZE, BLOCK = 10_000, 1024


@pytest.fixture
def content() -> bytes:
    return random.Random(3).randbytes(SIZE)


@pytest.fixture
def file(content: bytes, tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(content)
    return tmp_path / "a"


def of(content: bytes, folder: Path) -> Blocks:
    """Digests of each block, by slices."""
    parts = [content[start : start + BLOCK] for start in range(0, len(content), BLOCK)]
    return Blocks(folder, "a", len(content), BLOCK, [xxh3_128_hexdigest(part) for part in parts])


def read(source: CheckedFile, begin: int, count: int) -> bytes:
    out = bytearray(count)
    source.read(begin, memoryview(out), "x")
    return bytes(out)


def test_the_digest_is_xxh3_128() -> None:
    # XXH3_128bits of no bytes, from the test vectors of the reference implementation.
    assert xxh3_128_hexdigest(b"") == "99aa06d3014798d86001c324468d497f"


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, SIZE])
def test_an_entry_has_the_digests_of_the_file_and_of_its_blocks(
    size: int, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", BLOCK)
    (tmp_path / "b").write_bytes(content[:size])
    sha256 = hashlib.sha256(content[:size]).hexdigest()
    digests = of(content[:size], tmp_path).digests
    assert entry_of(tmp_path / "b") == {"bytes": size, "sha256": sha256, "xxh3_128": digests}


def test_parts_in_any_order_are_read_and_checked(file: Path, content: bytes) -> None:
    draw = random.Random(5)
    for _ in range(50):
        damaged = bytearray(content)
        position = draw.randrange(SIZE)
        damaged[position] ^= 1 << draw.randrange(8)
        source = CheckedFile(file, of(content, file.parent))
        begins = [draw.randrange(SIZE) for _ in range(6)]
        parts = [(begin, draw.randrange(1, 3000)) for begin in draw.choice([begins, sorted(begins)])]
        parts = [(begin, min(count, SIZE - begin)) for begin, count in parts]
        file.write_bytes(content)
        assert all(read(source, *part) == content[part[0] : sum(part)] for part in parts)
        source.settle()

        file.write_bytes(damaged)
        source = CheckedFile(file, of(content, file.parent))
        block = position // BLOCK
        touched = any(begin // BLOCK <= block <= (begin + count - 1) // BLOCK for begin, count in parts)
        if not touched:
            assert all(read(source, *part) == content[part[0] : sum(part)] for part in parts)
            source.settle()
            continue
        with pytest.raises(
            UserError, match=rf"a has changed since it was written, in block {block + 1} of 10"
        ):
            _ = [read(source, *part) for part in parts], source.settle()


def test_every_byte_of_touched_blocks_is_read_once_and_no_other(
    file: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def counted(descriptor: int, buffers: list[memoryview], begin: int) -> int:
        asked.append((begin, count := preadv(descriptor, buffers, begin)))
        return count

    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", counted)
    source = CheckedFile(file, of(content, file.parent))
    for begin, count in ((1500, 100), (1600, 1000), (2700, 10), (5000, 2000)):
        assert read(source, begin, count) == content[begin : begin + count]
    source.settle()
    covered = sorted(byte for begin, count in asked for byte in range(begin, begin + count))
    assert covered == [*range(1024, 3072), *range(4096, 7168)]
    assert read(source, 1500, 100) == content[1500:1600] and asked[-1] == (1500, 100)


def test_values_whose_block_goes_on_are_checked_before_they_are_used(tmp_path: Path) -> None:
    save_file({"a": torch.arange(1000.0), "b": torch.arange(1000.0)}, tmp_path / "a")
    content = bytearray((tmp_path / "a").read_bytes())
    written = of(bytes(content), tmp_path)
    content[-4001] ^= 1  # The last byte of a; its block goes on with b.
    (tmp_path / "a").write_bytes(content)
    stored = read_files([tmp_path / "a"], {tmp_path / "a": written})
    with pytest.raises(UserError, match="a has changed since it was written, in block 5 of 8"):
        fill({"a": torch.empty(1000)}, {"a": stored["a"]}, tmp_path)
    stored = read_files([tmp_path / "a"], {tmp_path / "a": written})
    with pytest.raises(UserError, match="a has changed since it was written, in block 5 of 8"):
        stored["a"].read()
    rest = torch.empty(500)
    read_files([tmp_path / "a"], {tmp_path / "a": written})["b"].copy((slice(500, 1000),), rest)
    assert torch.equal(rest, torch.arange(500.0, 1000.0))


def test_a_file_that_became_shorter_is_told(file: Path, content: bytes) -> None:
    source = CheckedFile(file, of(content, file.parent))
    file.write_bytes(content[:4000])
    with pytest.raises(UserError, match="x can't be read: the file was cut short meanwhile"):
        read(source, 3000, 2000)
    file.unlink()
    with pytest.raises(UserError, match="x can't be read: No such file or directory"):
        read(source, 0, 1)


def test_all_changed_blocks_are_named(file: Path, content: bytes) -> None:
    damaged = bytearray(content)
    damaged[0] ^= 1
    damaged[3000] ^= 1
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    written = of(content, file.parent)
    assert changed_blocks(file, written) == [0, 2, 9]
    assert written.changed([0, 2, 9]) == (
        "a has changed since it was written, in blocks 1, 3, 10 of 10, each of 1024 bytes"
    )
