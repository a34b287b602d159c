"""musubi-tuner's dataset TOML: its clips, and what it says of frames and sizes as lines for a spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_config.schema import UserError
from mm_config.specs import BucketSpec, DataSpec, Pieces, Resize, ShapesSpec
from mm_data.index.listed import Listed, Source
from mm_data.index.pieces import Cutting, cuts_of
from mm_data.index.sources.opening import Reading, open_source

GUIDE = """
[general]
resolution = [960, 544]
caption_extension = ".cap"
batch_size = 1
enable_bucket = true
bucket_no_upscale = false

[[datasets]]
video_directory = "videos"
cache_directory = "cache"
target_frames = [1, 25, 45]
frame_extraction = "head"
source_fps = 30.0

[[datasets]]
image_jsonl_file = "images.jsonl"
resolution = [512, 512]
num_repeats = 3
"""
"""As its documentation has them."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    for name, text in (("1.mp4", ""), ("1.cap", "one"), ("2.mov", ""), ("2.cap", "two"), ("poster.jpg", "")):
        (tmp_path / "videos" / name).write_text(text)
    (tmp_path / "images.jsonl").write_text('{"image_path": "pictures/3.png", "caption": "three"}\n')
    return tmp_path.resolve()


def opened(root: Path, text: str) -> Source:
    (root / "dataset.toml").write_text(text)
    return open_source(str(root / "dataset.toml"), Reading())


def mistakes(root: Path, text: str) -> list[str]:
    with pytest.raises(UserError) as found:
        list(opened(root, text).listed)
    return [str(one).removeprefix(f"{root}/dataset.toml: ") for one in found.value.problems]


def as_spec(source: Source) -> DataSpec:
    """The lines, pasted."""
    known = {"BucketSpec": BucketSpec, "Resize": Resize, "DataSpec": DataSpec, "ShapesSpec": ShapesSpec}
    return eval(f"DataSpec(dataset=ShapesSpec(), {' '.join(source.spec_lines)})", known)


def test_the_files_of_its_guide(root: Path) -> None:
    source = opened(root, GUIDE)
    clips = [one for one in source.listed if isinstance(one, Listed)]
    assert [(one.name, one.captions) for one in clips] == [
        ("1.mp4", ("one",)),
        ("2.mov", ("two",)),
        *[("pictures/3.png", ("three",))] * 3,
    ]
    data = as_spec(source)
    # 45 is 4*11+1; width comes first there, and height here.
    sizes = [(one.num_frames, one.height, one.width) for one in data.buckets]
    assert sizes == [(1, 512, 512), (1, 544, 960), (25, 544, 960), (45, 544, 960)]
    assert (data.num_frames, data.height, data.width) == (45, 544, 960)
    assert (data.fps, data.frame_interval, data.batch_size) == (16.0, None, 1)
    assert (data.resize, data.size_multiple) == (Resize.AREA, 16)
    assert source.cutting == Cutting()
    assert [note.split(":")[0] for note in source.notes] == [
        "cache_directory is not taken over",
        "num_repeats",
        "source_fps",
        "batch_size is that of one process there, and of all ranks together here",
    ]


def test_pieces_and_plain_sizes(root: Path) -> None:
    text = (
        '[[datasets]]\nvideo_directory = "videos"\nresolution = 256\nbatch_size = 2\ntarget_frames = [20]\n'
    )
    slide = opened(root, f'{text}frame_extraction = "slide"\nframe_stride = 5\n')
    assert slide.cutting == Cutting(Pieces.WINDOWS, 17, 5)
    assert opened(root, f'{text}frame_extraction = "slide"').cutting == Cutting(Pieces.WINDOWS, 17, 10)
    assert opened(root, f'{text}frame_extraction = "chunk"').cutting == Cutting(Pieces.CHUNKS, 17)
    uniform = opened(root, f'{text}frame_extraction = "uniform"\nframe_sample = 3').cutting
    assert uniform is not None and uniform == Cutting(Pieces.UNIFORM, 17, count=3)
    # numpy's linspace(0, 100 - 17, 3), cut to whole numbers.
    assert list(cuts_of(uniform, 100, None, ())) == [(0, 17), (41, 58), (83, 100)]
    assert list(cuts_of(uniform, 18, None, ())) == [(0, 17), (1, 18)]
    assert list(cuts_of(uniform, 16, None, ())) == []
    data = as_spec(slide)
    assert (data.num_frames, data.height, data.width, data.buckets) == (17, 256, 256, ())
    assert (data.frame_interval, data.resize) == (1, Resize.CENTER_CROP)
    full = as_spec(opened(root, f'{text}frame_extraction = "full"\nmax_frames = 60'))
    assert (full.num_frames, full.min_num_frames) == (57, 1)


def test_what_it_asks_in_vain_is_refused(root: Path) -> None:
    video = '[[datasets]]\nvideo_directory = "videos"\n'
    assert mistakes(root, "x = 1") == ["expected [[datasets]], as musubi-tuner has them"]
    assert mistakes(root, "[[datasets")[0].startswith("not TOML that can be read: Expected ")
    assert mistakes(root, f"{video}target_frame = [1]\nnum_repeats = 0\nresolution = [1]") == [
        "[[datasets]] 1: no key 'target_frame' is known; did you mean target_frames?",
        "[[datasets]] 1: num_repeats must be a whole number above 0, got 0",
        "[[datasets]] 1: resolution must be [width, height], got [1]",
    ]
    assert mistakes(root, f'{video}image_directory = "x"') == [
        "[[datasets]] 1: expected a path as one of image_directory, image_jsonl_file, video_directory, "
        "video_jsonl_file, got image_directory, video_directory"
    ]
    assert mistakes(root, f'{video}frame_extraction = "tail"') == [
        '[[datasets]] 1: frame_extraction: "tail" is not known; head, full, chunk, slide and uniform are'
    ]
    assert mistakes(root, f'{video}frame_extraction = "chunk"\ntarget_frames = [1, 5]')[0].startswith(
        "[[datasets]] 1: frame_extraction: 'chunk' with several target_frames"
    )
    assert mistakes(root, f'{video}{video}frame_extraction = "chunk"\ntarget_frames = [5]') == [
        "its datasets are cut in different ways; index them one by one"
    ]
    assert mistakes(root, '[[datasets]]\nvideo_directory = "/etc"') == [
        f"[[datasets]] 1.video_directory: a folder out of {root}; `--location NAME=/etc` or a line of "
        "locations.yaml allows a folder: '/etc'"
    ]
