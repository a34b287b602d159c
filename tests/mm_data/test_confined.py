"""What strangers' files are held to: no network, no program, no file, bounded memory."""

from __future__ import annotations

import io
import random
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mm_config.schema import UserError
from mm_config.specs import Reader
from mm_data import BadClip
from mm_data.media import open_media
from mm_data.video import confined
from mm_data.video.index import index_video
from mm_data.video.isolated import Isolated
from mm_data.video.readers import IN_A_PROCESS, indexer_of, reader_of
from tests.mm_data import faulty_readers as faulty
from tests.mm_data.conftest import Coded
from tests.mm_data.damages import samples_made_up
from tests.mm_data.test_isolated import INDEX, isolated_reader


@pytest.fixture(scope="module")
def reader() -> Iterator[Isolated]:
    with isolated_reader() as made:
        yield made


def ask(reader: Isolated, folder: Path, what: int, content: str) -> None:
    (folder / "clip").write_text(content)
    with (folder / "clip").open("rb") as file:
        reader(file, INDEX, [what], height=4, width=6)


def test_a_process_that_decodes_reaches_no_host_though_this_one_does(reader, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        server.accept()[0].close()
        server.settimeout(0.1)
        with pytest.raises(BadClip, match="PermissionError"):
            ask(reader, tmp_path, faulty.CONNECT, str(port))
        with pytest.raises(TimeoutError):
            server.accept()


def test_it_starts_no_program_and_writes_no_file(reader, tmp_path):
    with pytest.raises(BadClip, match="PermissionError"):
        ask(reader, tmp_path, faulty.START, "")
    target = tmp_path / "target"
    with pytest.raises(BadClip, match="File too large"):
        ask(reader, tmp_path, faulty.WRITE, str(target))
    assert target.read_text() == ""


def test_where_the_kernel_takes_no_network_away_isolation_is_refused(tmp_path, monkeypatch, coded):
    """The processes are told of a machine whose calls nobody knows."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text("import platform\nplatform.machine = lambda: 'mips'\n")
    reader = Isolated(IN_A_PROCESS[Reader.PYAV], offline=True)
    with open_media(coded.write(tmp_path / "a.mp4")) as file, pytest.raises(UserError) as caught:
        reader.index(file)
    assert "spec.data.isolated: can't be held to: its processes would have network" in str(caught.value)
    assert "the system calls of mips" in str(caught.value)


def test_the_filter_s_numbers_are_those_of_this_machine_s_headers():
    """What the kernel answers is what the table says: an own socket is made, then none."""
    assert confined.CALLS["x86_64"][0] == 0x80000000 | 0x40000000 | 62  # EM_X86_64, 64 bits, little endian.
    assert confined.CALLS["aarch64"][0] == 0x80000000 | 0x40000000 | 183  # EM_AARCH64.


def made_up(path: Path) -> Path:
    """An mp4 of a few KB whose index has entries for 80 million frames."""
    path.write_bytes(samples_made_up(path.read_bytes(), random.Random(0)))
    return path


@pytest.mark.parametrize("isolated", [False, True])
def test_an_index_made_up_to_fill_memory_is_a_bad_clip_before_it_does(tmp_path, coded: Coded, isolated):
    """FFmpeg makes 5 GB of it."""
    path = made_up(coded.write(tmp_path / "a.mp4", options={"x264-params": "bframes=0"}))
    assert path.stat().st_size < 50_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_media(path) as file, pytest.raises(BadClip, match="declares 80000000 samples, more than"):
        indexer_of(isolated)(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_an_index_that_nobody_foresaw_ends_at_the_memory_limit(tmp_path, monkeypatch, coded: Coded):
    """The same file where no box is looked at, in a process that may have 2 GB."""
    path = made_up(coded.write(tmp_path / "a.mp4", options={"x264-params": "bframes=0"}))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text("import mm_data.video.boxes as b\nb.MAX_SAMPLES = 1 << 40\n")
    reader = Isolated(IN_A_PROCESS[Reader.PYAV], memory=2 << 30)
    with open_media(path) as file, pytest.raises(BadClip):
        reader.index(file)
    peak = Path(f"/proc/{reader._idle[0].process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
    assert int(peak) < 2 << 20
    reader.close()


@pytest.mark.parametrize("reader", [Reader.PYAV, Reader.DECORD])
@pytest.mark.parametrize("isolated", [False, True])
def test_a_part_of_a_shard_is_read_as_the_file_that_it_is(tmp_path, coded: Coded, reader, isolated):
    """A file without a descriptor: what a part of a shard and a remote object are."""
    path = coded.write(tmp_path / "a.mp4")
    with open_media(path) as file:
        index = index_video(file)
        expected = reader_of(reader)(file, index, index.pts[3:9], height=64, width=128)
    part = io.BufferedReader(io.BytesIO(path.read_bytes()))  # pyright: ignore[reportArgumentType]
    found = indexer_of(isolated)(part)
    assert found == index
    frames = reader_of(reader, isolated)(part, found, index.pts[3:9], height=64, width=128)
    np.testing.assert_array_equal(frames, expected)


def test_an_index_crosses_whole(tmp_path, coded: Coded):
    with open_media(coded.write(tmp_path / "a.mkv", [*range(40)], matrix=(0, 1, 1, 0))) as file:
        assert indexer_of(True)(file) == index_video(file)
