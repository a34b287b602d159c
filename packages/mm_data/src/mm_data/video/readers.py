"""The one way to read frames, whichever library decodes them, in this process or in one with limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO, Protocol

import numpy as np

from mm_config.specs import Reader
from mm_data.video.index import VideoIndex, index_video
from mm_data.video.isolated import isolated as isolated_reader
from mm_data.video.reading import read_frames
from mm_data.video.reading_decord import require_decord
from mm_data.video.reading_torchcodec import read_frames_torchcodec, require_torchcodec

IN_A_PROCESS = {
    Reader.PYAV: "mm_data.video.reading:read_frames",
    Reader.DECORD: "mm_data.video.reading_decord:read_frames_decord",
    Reader.TORCHCODEC: "mm_data.video.reading_torchcodec:read_frames_torchcodec",
}
"""What reads in a process of its own."""


class ReadFrames(Protocol):
    """Decodes frames by timestamp. A frame that is returned is the asked one; where it can't be, none is."""

    def __call__(
        self, file: BinaryIO, index: VideoIndex, wanted: Sequence[int], *, height: int, width: int
    ) -> np.ndarray:
        """
        Args:
            file: An opened clip; it is used by this call alone, from any place in it.
            index: What `index_video` found in it.
            wanted: Timestamps out of `index.pts`, ascending; they may repeat.
            height, width: Size of the returned frames, which are upright; any aspect ratio.

        Returns:
            uint8 RGB `[len(wanted), height, width, 3]`.

        Raises:
            BadClip: A frame is damaged or doesn't come out, or the library can't be trusted with the clip.
        """
        ...


def reader_of(reader: Reader, isolated: bool = False) -> ReadFrames:
    """What reads frames with a library.

    decord always has a process of its own: it ends its process on some damaged files.

    Args:
        reader: The library.
        isolated: Whether it reads in processes with limits on time and memory and without network.

    Raises:
        UserError: It isn't installed, or can't be imported.
    """
    if reader is Reader.DECORD:
        require_decord()
    if reader is Reader.TORCHCODEC:
        require_torchcodec()
    if isolated or reader is Reader.DECORD:
        return isolated_reader(IN_A_PROCESS[reader], offline=isolated)
    return read_frames_torchcodec if reader is Reader.TORCHCODEC else read_frames


def indexer_of(isolated: bool) -> Callable[[BinaryIO], VideoIndex]:
    """What reads the index of an opened clip: `index_video`, or the same in a process with limits."""
    return isolated_reader(IN_A_PROCESS[Reader.PYAV], offline=True).index if isolated else index_video
