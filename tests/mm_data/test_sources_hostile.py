"""Sources whose bytes were changed: read, or refused by a problem, and nothing else."""

from __future__ import annotations

import io
import random
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mm_config.schema import UserError
from mm_data.index.sources.opening import Reading, open_source
from tests.mm_data.test_sources_tables import TABLES

TABLE = pa.table({"path": ["1.mp4", "2.mp4"], "caption": [["one"], ["two"]], "cut": ["[0, 9]", None]})
MEMBERS = (("1.mp4", b"x" * 700), ("1.json", b'{"cap": "one", "frame_idx": "0:9"}'), ("1.txt", b"y"))


def parquet() -> bytes:
    pq.write_table(TABLE, found := io.BytesIO())
    return found.getvalue()


def arrow() -> bytes:
    found = io.BytesIO()
    with pa.ipc.new_stream(found, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return found.getvalue()


def shard() -> bytes:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as tar:
        for name, content in MEMBERS:
            (info := tarfile.TarInfo(name)).size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return found.getvalue()


TOML = b"[general]\nresolution = [64, 32]\n[[datasets]]\nvideo_directory = '.'\ntarget_frames = [1, 5]\n"
MADE: dict[str, Callable[[], bytes]] = {
    **{name: lambda text=text: text.encode() for name, text in TABLES.items()},
    "a.parquet": parquet,
    "a.arrow": arrow,
    "a.tar": shard,
    "a.toml": lambda: TOML,
    "data.txt": lambda: b"clips,one.csv\n.,two.json\n",
}
STRUCTURE = b"[]{}\"',:;\\\n\r\t\0/.-9e\xff\xfe\x80"


def changed(content: bytes, chance: random.Random) -> bytes:
    """Cut off, flipped, or with pieces that mean something put in, doubled or taken out."""
    found = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(found) + 1)
        length = chance.choice((1, 1, 1, 4, 40))
        what = chance.randrange(5)
        if what == 0:
            found[at : at + length] = chance.randbytes(length)
        elif what == 1:
            found[at:at] = bytes(chance.choices(STRUCTURE, k=length))
        elif what == 2:
            del found[at : at + length]
        elif what == 3:
            found[at:at] = found[max(at - 50, 0) : at] * chance.choice((1, 3))
        else:
            del found[at:]
    return bytes(found)


@pytest.mark.parametrize("count", [25, pytest.param(2_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MADE)
def test_changed_bytes_are_read_or_refused(name: str, count: int, tmp_path: Path) -> None:
    content, path, refused = MADE[name](), tmp_path / name, 0
    chance = random.Random(f"{name} {count}")
    for number in range(count):
        path.write_bytes(changed(content, chance))
        began = time.monotonic()
        try:
            for one in open_source(str(path), Reading()).listed:
                assert one.name and one.place
        except UserError as error:
            refused += 1
            assert all(problem.message and len(str(problem)) < 2_000 for problem in error.problems), number
        assert time.monotonic() - began < 20
    assert refused
