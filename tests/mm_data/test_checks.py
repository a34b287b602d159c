"""What doctor asks of video reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import BinaryIO

import numpy as np
import pytest

from mm_config.doctor.checks import BROKEN, OK, Check, DoctorOptions
from mm_data.checks import reader_isolated, readers, round_trip
from mm_data.video.index import VideoIndex
from mm_data.video.reading import read_frames


def test_the_libraries_that_are_installed_read_what_was_written() -> None:
    installed = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec"}
    assert list(readers(DoctorOptions())) == [
        Check(f"reader {name}", OK, f"{version(library)}, H.264 written and read back")
        for name, library in installed.items()
        if find_spec(library)
    ]


def test_a_process_with_limits_reads_what_was_written() -> None:
    assert [check.status for check in reader_isolated(DoctorOptions())] == [OK]


def test_a_reader_that_returns_other_frames_is_broken() -> None:
    def one_frame_late(
        file: BinaryIO, index: VideoIndex, wanted: Sequence[int], *, height: int, width: int
    ) -> np.ndarray:
        return np.roll(read_frames(file, index, wanted, height=height, width=width), 1, axis=0)

    found = round_trip("late", "av", one_frame_late)
    assert found == Check("reader late", BROKEN, f"{version('av')} reads other frames than were written")


@pytest.mark.parametrize("kept", [0, 3])
def test_a_reader_that_drops_frames_is_broken(kept: int) -> None:
    def short(
        file: BinaryIO, index: VideoIndex, wanted: Sequence[int], *, height: int, width: int
    ) -> np.ndarray:
        return read_frames(file, index, wanted, height=height, width=width)[:kept]

    assert round_trip("short", "av", short).status is BROKEN
