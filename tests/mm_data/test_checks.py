"""What doctor asks of video reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import BinaryIO

import numpy as np
import pytest

from mm_config.doctor.checks import BROKEN, OK, Check, DoctorOptions
from mm_data.checks import reader_decord, reader_pyav, round_trip
from mm_data.video.index import VideoIndex
from mm_data.video.reading import read_frames


def test_pyav_reads_what_was_written() -> None:
    assert list(reader_pyav(DoctorOptions())) == [
        Check("reader pyav", OK, f"{version('av')}, H.264 written and read back")
    ]


def test_decord_is_tried_where_it_is_installed() -> None:
    found = list(reader_decord(DoctorOptions()))
    assert [check.status for check in found] == [OK] * bool(find_spec("decord"))


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
