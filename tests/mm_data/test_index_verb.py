"""`mm data index`, and trainings that name what it reads: from clips as they are to a dataset."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import attrs
import numpy as np
import pytest
from PIL import Image

from mm_config.cli.app import app
from mm_config.content import digest_of_parts
from mm_config.options import Locations, load_locations
from mm_config.schema import UserError
from mm_config.specs import DataSpec, FolderSpec, IndexSpec, Pieces
from mm_data import dataset_input, load_clip, prepare
from mm_data.index.making import index_of_folder
from mm_data.media import open_media
from mm_data.records import ask
from mm_data.video import readers
from tests.mm_data.conftest import Coded

Command = Callable[..., str]


@pytest.fixture
def clips(tmp_path: Path, coded: Coded) -> Path:
    """Two videos of 40 and 12 frames one of a single frame, and one that is none."""
    (root := tmp_path / "clips").mkdir()
    coded.write(root / "long.mp4")
    coded.write(root / "short.mp4", range(12))
    coded.write(root / "still.mp4", range(1))
    (root / "text.mp4").write_text("no video")
    for name in ("long", "short", "still", "text"):
        (root / f"{name}.txt").write_text(f"a {name} clip")
    return root.resolve()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `mm data index` in this process and returns what it prints."""

    def run(*words: object, status: int = 0) -> str:
        assert app(["data", "index", *map(str, words)]) == status
        out, err = capsys.readouterr()
        return err if status else out

    return run


def test_the_verb_teaches(capsys: pytest.CaptureFixture[str], command: Command) -> None:
    assert app(["data"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("usage: mm data VERB ...\n")
    assert "  index " in page and "Measure clips and write their index" in page
    assert app(["data", "idnex"]) == 2
    assert "'idnex' is no verb of mm data; did you mean index?" in capsys.readouterr().err
    page = command("--help")
    assert page.startswith("usage: mm data index SRC DST")
    assert app(["help", "data", "index"]) == 0 and capsys.readouterr().out == page
    assert "expected SRC DST, got none" in command(status=2)
    assert "expected one of whole, chunks, windows, uniform, shots, got 'all'" in command(
        "a", "b", "--pieces", "all", status=2
    )


def test_a_folder_becomes_an_index_and_a_line_for_the_spec(
    clips: Path, tmp_path: Path, command: Command
) -> None:
    told = command(clips, tmp_path / "index", "--name", "mine")
    assert "samples    3" in told and "text.mp4" in told
    (line,) = [line for line in told.splitlines() if line.startswith("dataset=")]
    spec = eval(line.removeprefix("dataset=").rstrip(","), {"IndexSpec": IndexSpec})
    locations = load_locations([f"mine={tmp_path}/index"])
    dataset = prepare(spec, cache_dir=tmp_path / "cache", locations=locations)
    assert [(record.path.name, record.caption) for record in dataset.records] == [
        ("long.mp4", "a long clip"),
        ("short.mp4", "a short clip"),
        ("still.mp4", "a still clip"),
    ]
    frames = [record.measured and record.measured.num_frames for record in dataset.records]
    assert frames == [40, 12, 1]
    assert dataset_input(spec, dataset, tmp_path / "contents").digest == spec.digest
    shutil.rmtree(clips)
    assert "no such file or folder" in command(clips, tmp_path / "other", status=2)


def test_the_lines_to_paste_are_quoted(clips: Path, tmp_path: Path, command: Command) -> None:
    told = command(clips, tmp_path / "my clips")
    assert shlex.split(told.splitlines()[-1])[2:] == ["--location", f"my clips={tmp_path}/my clips"]


def test_what_is_printed_for_programs_and_where_an_index_may_lie(
    clips: Path, tmp_path: Path, command: Command
) -> None:
    (clips / "musubi.toml").write_text('[[datasets]]\nvideo_directory = "."\nresolution = [128, 64]\n')
    told = command(clips / "musubi.toml", tmp_path / "index", "--remote", "s3://more", "--json")
    found = json.loads(told)
    assert found["spec"] == f'IndexSpec(name="index", digest="{found["digest"]}", remote=(\'s3://more\',))'
    assert found["data"][:3] == ["num_frames=1,", "height=64,", "width=128,"]
    assert (found["stats"]["samples"], found["stats"]["left_out"]["count"], found["changes"]) == (3, 2, None)
    inside = command(clips, clips / "index", status=2)
    assert inside == f"{clips}/index: lies inside {clips}, which would list it; name another\n"
    missing = command(clips, tmp_path / "x", "--pieces", "uniform", "--piece-count", 3, status=2)
    assert missing == "piece_frames: is missing; pieces are uniform\n"
    told = r"spec\.data\.dataset: piece_stride: is given, which only windows have"
    with pytest.raises(UserError, match=told):
        prepare(FolderSpec(name="x", path=str(clips), piece_stride=3), cache_dir=tmp_path)


def test_a_training_may_name_the_folder_itself(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = FolderSpec(name="mine", pieces=Pieces.CHUNKS, piece_frames=12)
    locations = load_locations([f"mine={clips}"])

    def names() -> list[tuple[str, tuple[int, int] | None]]:
        dataset = prepare(spec, cache_dir=tmp_path / "cache", locations=locations)
        assert dataset.root == clips
        found = dataset_input(spec, dataset, tmp_path / "contents")
        assert found.name == "mine" and found.digest == digest_of_parts(dataset.records.parts())  # pyright: ignore
        return [(record.path.name, record.cut) for record in dataset.records]

    chunks = [("long.mp4", (0, 12)), ("long.mp4", (12, 24)), ("long.mp4", (24, 36))]
    assert names() == [*chunks, ("short.mp4", (0, 12)), ("still.mp4", None)]
    told = capsys.readouterr().err
    assert f"{clips}: 1 left out: decode: Invalid data found when processing input" in told
    # What has changed is measured again, and told.
    shutil.copy(clips / "short.mp4", clips / "new.mp4")
    (clips / "new.txt").write_text("a new clip")
    (clips / "long.mp4").unlink()
    assert names() == [("new.mp4", (0, 12)), ("short.mp4", (0, 12)), ("still.mp4", None)]
    told = capsys.readouterr().err
    assert "changes since it was indexed: long.mp4 is gone" in told
    assert f"{clips}: 1 left out: a caption without a clip beside it" in told


def test_ranks_behind_the_first_open_what_it_made(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = FolderSpec(name="mine")
    first = index_of_folder(spec, str(clips), tmp_path, Locations())
    (clips / "short.mp4").unlink()
    monkeypatch.setenv("RANK", "1")
    assert len(index_of_folder(spec, str(clips), tmp_path, Locations())) == len(first) == 3
    monkeypatch.setenv("RANK", "0")
    assert len(index_of_folder(spec, str(clips), tmp_path, Locations())) == 2


def test_an_empty_result_says_what_took_how_many(clips: Path, tmp_path: Path, command: Command) -> None:
    (clips / "long.txt").unlink()
    (clips / "t.csv").write_text("path,caption\ntext.mp4,a\nnone.mp4,b\nlost.mp4,c\nlong.mp4,\n")
    told = command(clips / "t.csv", tmp_path / "index", status=2)
    assert told == (
        f"{clips}/t.csv: holds no clip that can be used; 2: open: no such file; "
        "1: decode: Invalid data found when processing input; 1: it has no caption\n"
    )
    assert not (tmp_path / "index").exists()


def test_clips_in_shards_are_read_where_they_lie(clips: Path, tmp_path: Path, command: Command) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "0.tar", "w") as tar:
        for name in ("long.mp4", "long.txt", "still.mp4", "still.txt", "text.mp4", "text.txt"):
            tar.add(clips / name, name)
    told = command(shards, tmp_path / "index", "--name", "x")
    assert "samples    2" in told and "0.tar/text.mp4" in told
    dataset = prepare(
        IndexSpec(name="x", digest="0" * 64, path=str(tmp_path / "index")), cache_dir=tmp_path / "cache"
    )
    for record, name in zip(dataset.records, ("long.mp4", "still.mp4"), strict=True):
        with open_media(record.path, record.part) as file:
            assert isinstance(file, io.BufferedIOBase) and file.read() == (clips / name).read_bytes()


def test_pictures_and_videos_of_shards_train_in_one_stream(
    coded: Coded, tmp_path: Path, data_spec: Callable[..., DataSpec]
) -> None:
    shards, picture = tmp_path / "shards", io.BytesIO()
    shards.mkdir()
    Image.fromarray(np.arange(64 * 128 * 3, dtype=np.uint8).reshape(64, 128, 3)).save(picture, "png")
    coded.write(tmp_path / "video.mp4")
    with tarfile.open(shards / "0.tar", "w") as tar:
        for name, content in (
            ("a.png", picture.getvalue()),
            ("a.txt", b"a picture"),
            ("b.mp4", (tmp_path / "video.mp4").read_bytes()),
            ("b.json", b'{"caption": "a video", "frame_idx": "10:30"}'),
        ):
            (info := tarfile.TarInfo(name)).size = len(content)
            tar.addfile(info, io.BytesIO(content))
    dataset = FolderSpec(name="x", path=str(shards))
    still, moving = prepare(dataset, cache_dir=tmp_path).records
    data = data_spec(dataset=dataset, height=64, width=128, fps=24.0)
    clip = load_clip(ask(still, attrs.evolve(data, num_frames=1)), data)
    assert clip.caption == "a picture"
    assert np.array_equal(clip.frames[0].numpy(), np.asarray(Image.open(picture).convert("RGB")))
    clip = load_clip(ask(moving, attrs.evolve(data, num_frames=5)), data)
    assert [coded.number(frame) for frame in clip.frames.numpy()] == [10, 11, 12, 13, 14]


def test_a_spec_that_names_a_place_twice_or_another_content_is_refused(
    clips: Path, tmp_path: Path, command: Command
) -> None:
    command(clips, tmp_path / "index")
    spec = IndexSpec(name="index", digest="0" * 64)
    locations = load_locations([f"index={tmp_path}/index"])
    dataset = prepare(spec, cache_dir=tmp_path, locations=locations)
    with pytest.raises(UserError, match=r"spec\.data\.dataset\.digest: is 0{64}, but the content found is"):
        dataset_input(spec, dataset, tmp_path / "contents")
    both = IndexSpec(name="index", digest="0" * 64, path=str(tmp_path / "index"))
    with pytest.raises(UserError, match=r"--location says where 'index' lies, too; give one of them"):
        prepare(both, cache_dir=tmp_path, locations=locations)
    with pytest.raises(UserError, match="holds no index"):
        prepare(IndexSpec(name="x", digest="0" * 64, path=str(clips)), cache_dir=tmp_path)


def test_strangers_files_are_measured_in_processes_with_limits(
    tmp_path: Path, clips: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(file: BinaryIO) -> None:
        raise AssertionError("looked at in this process")

    plain = json.loads(command(clips, tmp_path / "plain", "--name", "clips", "--json"))
    monkeypatch.setattr(readers, "index_video", here)
    apart = json.loads(command(clips, tmp_path / "apart", "--name", "clips", "--json", "--isolated"))
    assert apart["digest"] == plain["digest"]
    assert apart["stats"]["left_out"]["reasons"] == plain["stats"]["left_out"]["reasons"]
    folder = FolderSpec(name="clips", path=str(clips))
    assert len(prepare(folder, cache_dir=tmp_path / "cache", isolated=True).records) == 3


def test_a_name_that_is_no_unicode_is_left_out(clips: Path, tmp_path: Path, command: Command) -> None:
    for ending in (".mp4", ".txt"):
        shutil.copy(clips / f"long{ending}", clips / f"caf\udce9{ending}")
    assert "its name is no text in Unicode; rename it" in command(clips, tmp_path / "index")


@pytest.mark.parametrize("name", ["clips.toml", "data.txt", "clips.csv", "clips.tar"])
def test_a_source_that_is_a_pipe_is_a_line(name: str, tmp_path: Path, command: Command) -> None:
    os.mkfifo(tmp_path / name)
    assert "not a regular file" in command(tmp_path / name, tmp_path / "index", status=2)
    assert command("", tmp_path / "index", status=2).startswith("SRC: is empty")


def test_several_commands_make_one_index(clips: Path, tmp_path: Path) -> None:
    for number in range(40):
        for ending in (".mp4", ".txt"):
            shutil.copy(clips / f"long{ending}", clips / f"{number}{ending}")
    words = ["data", "index", str(clips), str(tmp_path / "index")]
    call = f"from mm_config.cli.app import app; raise SystemExit(app({words!r}))"
    started = [subprocess.Popen([sys.executable, "-c", call]) for _ in range(3)]
    assert [one.wait() for one in started] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir() if "index" in path.name] == ["index"]
