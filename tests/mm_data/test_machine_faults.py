"""What the machine can't do is no clip's fault: it ends the run in one line, and no good clip is listed."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import attrs
import numpy as np
import pytest

from mm_config.schema import UserError
from mm_config.specs.data import DataSpec, Reader
from mm_data import BadClip, Dataset, Record, stream
from mm_data.bad import Fault
from mm_data.media import open_media
from mm_data.video import limits
from mm_data.video.isolated import Isolated, isolated
from mm_data.video.readers import IN_A_PROCESS
from tests.mm_data import faulty_readers as faulty
from tests.mm_data.conftest import INSTALLED
from tests.mm_data.streams import load_record
from tests.mm_data.test_isolated import INDEX, isolated_reader

Spec = Callable[..., DataSpec]


@pytest.fixture
def reader() -> Iterator[Isolated]:
    with isolated_reader() as made:
        yield made


@attrs.frozen
class Failing:
    """A file of which one read, or each from one on, fails as on a disk that is broken or far away."""

    file: BinaryIO
    number: int
    at: int
    lasting: bool
    reads: list[int] = attrs.field(factory=list[int])

    def read(self, size: int = -1) -> bytes:
        self.reads.append(size)
        if len(self.reads) == self.at or (self.lasting and len(self.reads) > self.at):
            raise OSError(self.number, os.strerror(self.number))
        return self.file.read(size)

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def in_a_fork(body: Callable[[], str]) -> str:
    """What a fork of this process says."""
    ours, theirs = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            said = body()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(theirs, said.encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


def outcomes(dataset: Dataset, data: DataSpec) -> str:
    """What becomes of each clip: `read`, `bad` or `ended`."""
    found: list[str] = []
    for record in dataset.records:
        try:
            load_record(record, data)
            found.append("read")
        except UserError as error:
            found.append("ended" if str(error).startswith(str(record.path)) else str(error))
        except BadClip as bad:
            found.append(f"bad {bad}")
    return " ".join(found)


def test_a_limit_on_memory_makes_no_clip_bad(coded_dataset: Dataset, data_spec: Spec) -> None:
    seen = set[str]()
    few = attrs.evolve(coded_dataset, records=coded_dataset.records[:1])
    large = data_spec(height=2048, width=4096, num_frames=2)
    load_record(few.records[0], large)
    for megabytes in (0, 2, 10, 30, 60, 200, 4000):

        def body(left: int = megabytes << 20) -> str:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + left, used + left))
            return outcomes(few, large)

        seen |= set(in_a_fork(body).split())
    assert seen == {"read", "ended"}


@pytest.mark.parametrize("name", INSTALLED)
def test_a_limit_on_open_files_makes_no_clip_bad(
    coded_dataset: Dataset, data_spec: Spec, name: Reader
) -> None:
    data, seen = data_spec(reader=name), set[str]()
    few = attrs.evolve(coded_dataset, records=coded_dataset.records[:2])
    for left in (0, 1, 2, 4, 6, 16):

        def body(left: int = left) -> str:
            isolated(IN_A_PROCESS[Reader.DECORD])._idle.clear()
            highest = max(map(int, os.listdir("/proc/self/fd")))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + left, highest + left))
            for number in range(highest):
                try:
                    os.fstat(number)
                except OSError:
                    os.dup2(0, number)
            return outcomes(few, data)

        seen |= set(in_a_fork(body).split())
    assert seen == {"read", "ended"}


def test_where_no_thread_can_start_a_clip_is_not_called_bad(
    coded_dataset: Dataset, data_spec: Spec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none(**_: object) -> None:
        raise RuntimeError("can't start new thread")

    (tmp_path / "text.mp4").write_text("no video")
    monkeypatch.setattr(limits, "Thread", none)
    with pytest.raises(UserError, match=r"text.mp4: can't be read, and this machine is short of memory"):
        load_record(Record(tmp_path / "text.mp4", ""), data_spec())


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_file_system_that_fails_is_asked_once_more_and_ends_the_run(
    coded_dataset: Dataset, data_spec: Spec, monkeypatch: pytest.MonkeyPatch, number: int, lasting: bool
) -> None:
    """At every read of the file, also where FFmpeg takes the failure for the file's end."""
    record, data = coded_dataset.records[3], data_spec()
    whole = load_record(record, data).frames
    reads = 0
    for at in range(1, 100):
        opened: list[Failing] = []

        def open_failing(
            path: Path, *_: object, at: int = at, opened: list[Failing] = opened
        ) -> Failing | BinaryIO:
            if opened and not lasting:
                return open_media(path)
            opened.append(Failing(open_media(path), number, at, lasting))
            return opened[-1]

        monkeypatch.setattr("mm_data.clips.open_media", open_failing)
        if not lasting:
            assert load_record(record, data).frames.equal(whole)
        else:
            try:
                assert load_record(record, data).frames.equal(whole) and len(opened[0].reads) < at
            except UserError as error:
                said = f"{record.path}: can't be read, and that is no fault of the clip's: "
                assert str(error).startswith(said) and os.strerror(number) in str(error)
                assert len(opened) == 2
        reads = max(reads, len(opened[0].reads))
        if len(opened[0].reads) < at:
            break
    assert reads >= 4


def test_it_ends_the_stream_and_lists_nothing(
    coded_dataset: Dataset, data_spec: Spec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stale(path: Path) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    monkeypatch.setattr("mm_data.media.open_regular", stale)
    listed = tmp_path / "quarantine.jsonl"
    with (
        stream(data_spec(), coded_dataset, seed=0, end_step=2, quarantine=listed) as batches,
        pytest.raises(UserError, match="no fault of the clip's: open: Stale file handle"),
    ):
        next(batches)
    assert not listed.exists()


def test_what_a_file_system_says_in_a_process_of_its_own_is_told(reader: Isolated, tmp_path: Path) -> None:
    (tmp_path / "clip").write_bytes(b"M")
    with (tmp_path / "clip").open("rb") as file:
        for what, fault in [
            (faulty.DISK, Fault.MACHINE),
            (faulty.MEMORY, Fault.UNSURE),
            (faulty.KILLED, Fault.UNSURE),
            (faulty.SEGFAULT, Fault.CLIP),
        ]:
            with pytest.raises(BadClip) as caught:
                reader(file, INDEX, [what, 1], height=4, width=6)
            assert caught.value.fault is fault


def test_a_descriptor_that_is_missing_is_not_the_process_s_end(
    reader: Isolated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    (tmp_path / "clip").write_bytes(b"M")
    monkeypatch.setattr(os, "memfd_create", none)
    with (tmp_path / "clip").open("rb") as file, pytest.raises(OSError, match="Too many open files"):
        reader(file, INDEX, [faulty.GOOD, 1], height=4, width=6)


def test_the_limit_of_such_a_process_stays_the_clip_s_fault(
    coded_dataset: Dataset, data_spec: Spec, monkeypatch: pytest.MonkeyPatch, reader: Isolated
) -> None:
    def read(file: BinaryIO, *_: object, **size: int) -> np.ndarray:
        return reader(file, INDEX, [faulty.MEMORY, 1], height=size["height"], width=size["width"])

    monkeypatch.setattr("mm_data.video.readers.read_frames", read)
    with pytest.raises(BadClip, match="MemoryError"):
        load_record(coded_dataset.records[0], data_spec())
