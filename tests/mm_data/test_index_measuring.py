"""What measuring finds in odd files, in parts of shards, and on machines that fail."""

from __future__ import annotations

import hashlib
import io
from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.video.stream import VideoStream
from PIL import Image

from mm_config.schema import UserError
from mm_config.specs import Pieces
from mm_data.bad import BadClip, Fault
from mm_data.index.journal import key_of, measured
from mm_data.index.measuring import Media
from mm_data.index.pieces import Cutting
from mm_data.index.table import IndexedRecords
from mm_data.records import Measured
from tests.mm_data.conftest import Coded, coded_frame
from tests.mm_data.sources import Opener, index_of, listed


def media_of(path: Path) -> Media:
    """What is measured of one file."""
    one = listed(path.parent, path.name)
    found = measured([one], Opener(), path.with_suffix(".jsonl"), workers=1)[key_of(one)]
    assert isinstance(found, Media), found
    return found


def turned(path: Path, *, degrees: int) -> Path:
    """A clip of 64x128 whose display matrix turns it, and whose pixels are three by two."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=24)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        stream.set_display_rotation(degrees)
        for number in range(5):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(coded_frame(number), format="rgb24")))
        output.mux(stream.encode(None))
    return path


def test_sizes_are_those_of_shown_frames(tmp_path: Path) -> None:
    found = media_of(turned(tmp_path / "turned.mp4", degrees=90))
    assert (found.height, found.width) == (192, 64)
    assert found.turns % 2 == 1 and not found.mirrored


def test_edit_lists_and_open_gops_are_known(tmp_path: Path, coded: Coded) -> None:
    plain = coded.write(tmp_path / "plain.mp4")
    cut = media_of(coded.cut(plain, tmp_path / "cut.mp4", keyframe=8, first=11))
    assert (cut.num_frames, cut.edited, cut.open_gop) == (40 - 11, True, False)
    options = {"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=3:b-adapt=0:open-gop=1"}
    opened = media_of(coded.write(tmp_path / "open.mp4", options=options))
    assert (opened.num_frames, opened.edited, opened.open_gop) == (40, False, True)


def test_pictures_are_clips_of_one_frame_that_last_no_time(tmp_path: Path, coded: Coded) -> None:
    root = tmp_path.resolve()
    turned_by_exif = Image.Exif()
    turned_by_exif[0x0112] = 6
    Image.fromarray(coded_frame(3)).save(root / "a.jpg", exif=turned_by_exif)
    coded.write(root / "b.mp4", range(5))
    cutting = Cutting(Pieces.CHUNKS, 5)
    built = index_of(root, [listed(root, "a.jpg"), listed(root, "b.mp4")], root / "index", cutting=cutting)
    picture, clip = IndexedRecords(root / "index")
    assert picture.measured == Measured(num_frames=1, fps=Fraction(0), height=128, width=64)
    assert (picture.cut, clip.cut) == (None, (0, 5))
    assert built.stats["images"] == 1 and built.stats["rates"] == {"24": 1}


def test_parts_of_a_shard_are_files_of_their_own(tmp_path: Path, coded: Coded) -> None:
    files = [coded.write(tmp_path / f"{frames}.mp4", range(frames)).read_bytes() for frames in (9, 5)]
    shard = tmp_path / "shard.tar"
    shard.write_bytes(b"x" * 512 + files[0] + files[1])
    places = [(512, len(files[0])), (512 + len(files[0]), len(files[1]))]
    clips = [listed(tmp_path, "shard.tar", part=part) for part in places]

    def opened(one):
        offset, length = one.part
        return io.BytesIO(shard.read_bytes()[offset : offset + length])

    found = measured(clips, opened, tmp_path / "journal", workers=2)
    media = [found[key_of(one)] for one in clips]
    assert [(one.sha256, one.num_frames, one.size) for one in media if isinstance(one, Media)] == [
        (hashlib.sha256(file).hexdigest(), frames, len(file))
        for file, frames in zip(files, (9, 5), strict=True)
    ]
    known = measured(clips, Opener(), tmp_path / "journal", workers=2)
    assert known == found


class Failing(Opener):
    """Opens a clip only after the machine has failed some times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def __call__(self, one):
        if one.name == "b.mp4" and self.times:
            self.times -= 1
            raise BadClip("open", "Input/output error", Fault.MACHINE)
        return super().__call__(one)


def test_what_a_machine_fails_at_is_tried_again_and_leaves_no_clip_out(tmp_path: Path, coded: Coded) -> None:
    root = tmp_path.resolve()
    for name in ("a.mp4", "b.mp4"):
        coded.write(root / name, range(5))
    clips = [listed(root, "a.mp4"), listed(root, "b.mp4")]
    with pytest.raises(UserError) as raised:
        index_of(root, clips, root / "index", opened=Failing(2))
    assert [str(problem) for problem in raised.value.problems] == [
        "b.mp4: can't be read, by no fault of its own: open: Input/output error",
        f"{root / 'index.measured.jsonl'}: keeps what was measured; run it again",
    ]
    assert not (root / "index").exists()
    opener = Failing(1)
    assert index_of(root, clips, root / "index", opened=opener).head.rows == 2
    assert opener.opened == ["b.mp4"]


def test_a_file_that_changes_while_it_is_read_is_no_measured_one(tmp_path: Path, coded: Coded) -> None:
    root = tmp_path.resolve()
    coded.write(root / "a.mp4", range(5))

    def written_to(one):
        file = Opener()(one)
        with (root / "a.mp4").open("ab") as grown:
            grown.write(b"more")
        return file

    with pytest.raises(
        UserError, match=r"a.mp4: can't be read, by no fault of its own: open: it changes while"
    ):
        index_of(root, [listed(root, "a.mp4")], root / "index", opened=written_to)
