"""What kills a decoder, or makes it hang, costs one clip."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from mm_config.schema import UserError
from mm_config.specs import Reader
from mm_data import BadClip
from mm_data.video import limits
from mm_data.video.index import VideoIndex, index_video
from mm_data.video.isolated import Isolated, isolated
from mm_data.video.limits import Watched
from mm_data.video.readers import IN_A_PROCESS
from mm_data.video.reading import read_frames
from mm_data.video.shown import Shown
from tests.mm_data import faulty_readers as faulty
from tests.mm_data.conftest import Coded
from tests.mm_data.damages import DAMAGES, originals

ROOT = Path(__file__).parents[2]
INDEX = VideoIndex((0, 1), (0,), Fraction(1, 24), Fraction(1, 12), "mp4", "h264", False, False, Shown(4, 6))
READER = "tests.mm_data.faulty_readers:read"


@pytest.fixture
def level(tmp_path: Path) -> Iterator[BinaryIO]:
    """A file whose first byte is 77."""
    (tmp_path / "clip").write_bytes(b"M")
    with (tmp_path / "clip").open("rb") as file:
        yield file


@contextmanager
def isolated_reader() -> Iterator[Isolated]:
    """`faulty_readers.read` in a process of its own, which ends with the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        made = Isolated(READER)
        yield made
        made.close()


@pytest.fixture(scope="module")
def reader() -> Iterator[Isolated]:
    with isolated_reader() as made:
        yield made


def ask(reader: Isolated, file: BinaryIO, what: int) -> np.ndarray:
    return reader(file, INDEX, [what, 1], height=4, width=6)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (faulty.ABORT, "the decoder's process ended by SIGABRT"),
        (faulty.SEGFAULT, "the decoder's process ended by SIGSEGV"),
        (faulty.EXIT, "the decoder's process ended with status 3"),
        (faulty.MEMORY, "MemoryError: Unable to allocate"),
        (faulty.RAISE, "AttributeError: 'NoneType' object has no attribute 'name'"),
        (faulty.SMALL, "the reader returned uint8 [4, 6, 3]"),
    ],
)
def test_a_clip_on_which_a_decoder_fails_is_bad_and_the_next_is_read(
    reader: Isolated, level: BinaryIO, what: int, reason: str
) -> None:
    with pytest.raises(BadClip) as caught:
        ask(reader, level, what)
    assert caught.value.stage == "decode" and caught.value.reason.startswith(reason)
    np.testing.assert_array_equal(ask(reader, level, faulty.GOOD), np.full((2, 4, 6, 3), 77))


def test_a_decoder_that_hangs_is_ended(level: BinaryIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    reader = Isolated(READER, seconds=0.5)
    with pytest.raises(BadClip, match="reading took longer than"):
        ask(reader, level, faulty.HANG)
    assert not reader._idle


def test_its_process_leaves_no_core_and_has_a_limit_on_memory(reader: Isolated, level: BinaryIO) -> None:
    assert ask(reader, level, faulty.CORE_FILES)[0, 0, 0, 0] == 0
    assert ask(reader, level, faulty.ADDRESS_SPACE)[0, 0, 0, 0] == 8


def test_what_a_decoder_prints_stops_nothing(reader: Isolated, level: BinaryIO) -> None:
    assert ask(reader, level, faulty.CHATTER)[0, 0, 0, 0] == 77


def test_a_process_reads_many_clips_and_one_that_died_is_replaced(
    level: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    reader = Isolated("tests.mm_data.faulty_readers:pid")

    def pid() -> int:
        return int.from_bytes(reader(level, INDEX, [0], height=4, width=6).tobytes(), "little")

    first = pid()
    assert [pid() for _ in range(3)] == [first] * 3 and first != os.getpid()
    os.kill(first, signal.SIGKILL)
    while reader._idle[0].process.poll() is None:
        time.sleep(0.01)
    assert pid() != first
    reader.close()


def test_threads_read_at_once_and_get_their_own_frames(reader: Isolated, tmp_path: Path) -> None:
    def read(number: int) -> np.ndarray:
        (tmp_path / str(number)).write_bytes(bytes([number]))
        with (tmp_path / str(number)).open("rb") as file:
            return ask(reader, file, faulty.GOOD)

    with ThreadPoolExecutor(3) as pool:
        for number, frames in enumerate(pool.map(read, range(60))):
            np.testing.assert_array_equal(frames, np.full((2, 4, 6, 3), number))


def test_a_process_that_can_not_start_is_no_clip_s_fault(level: BinaryIO) -> None:
    with pytest.raises(UserError, match="no_such_module:read reads clips can't be started: ModuleNotFound"):
        Isolated("no_such_module:read")(level, INDEX, [0], height=4, width=6)


def test_it_ends_with_its_parent_even_while_a_decoder_hangs(tmp_path: Path) -> None:
    program = f"""
from fractions import Fraction
from mm_data.video.index import VideoIndex
from mm_data.video.isolated import Isolated
from mm_data.video.shown import Shown
INDEX = {INDEX}
reader = Isolated({READER!r})
file = open({str(tmp_path / "clip")!r}, "rb")
reader(file, INDEX, [0], height=4, width=6)
print(reader._idle[0].process.pid, flush=True)
reader(file, INDEX, [3], height=4, width=6)
"""
    (tmp_path / "clip").write_bytes(b"M")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    until = time.monotonic() + 5
    while Path(f"/proc/{worker}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.slow
def test_decord_alone_on_damaged_files_costs_clips_and_nothing_else(tmp_path: Path, coded: Coded) -> None:
    """It gets the index of the intact file, so that PyAV, which refuses most of these files, is passed by."""
    contents, rng = originals(tmp_path, coded), random.Random(7)
    with (tmp_path / "a.mp4").open("rb") as file:
        index = index_video(file)
    deaths: list[str] = []
    for number in range(4000):
        suffix, damage = rng.choice(list(contents)), rng.choice(DAMAGES)
        (tmp_path / "damaged").write_bytes(damage(contents[suffix], rng))
        with (tmp_path / "damaged").open("rb") as file:
            try:
                isolated(IN_A_PROCESS[Reader.DECORD])(file, index, index.pts[:17], height=64, width=128)
            except BadClip as bad:
                deaths += [f"{number} {bad.reason}"] if "process ended" in bad.reason else []
    print(f"4000 damaged clips: decord's process ended {len(deaths)} times, e.g. {deaths[:1]}")


@pytest.mark.parametrize("name", [IN_A_PROCESS[Reader.PYAV], IN_A_PROCESS[Reader.DECORD]])
def test_both_readers_return_the_same_frames_in_a_process_of_their_own(
    tmp_path: Path, coded: Coded, name: str
) -> None:
    with coded.write(tmp_path / "a.mp4").open("rb") as file:
        index = index_video(file)
        wanted = index.pts[3:30:4]
        theirs = isolated(name)(file, index, wanted, height=64, width=128)
        np.testing.assert_array_equal(theirs, read_frames(file, index, wanted, height=64, width=128))


def test_a_file_that_is_read_for_too_long_is_a_bad_clip(
    tmp_path: Path, coded: Coded, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = coded.write(tmp_path / "a.mp4").read_bytes()
    monkeypatch.setattr(limits, "CLIP_SECONDS", -1.0)
    with pytest.raises(BadClip, match="reading took longer than"):
        index_video(io.BytesIO(content))
    with pytest.raises(BadClip, match="reading took longer than"):
        Watched(io.BytesIO(content), time.monotonic()).seek(0)
