"""Trainings over clips that are damaged, are mended, or have captions that are too long."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import mm_data
import mm_train
from mm_config import replace
from mm_config.options import RunOptions, StoppedEarly
from mm_config.schema import UserError
from mm_config.specs import Cache, CaptionSpec, ClipStart, ManifestSpec, Resize, TrainSpec
from mm_data import BadClip, Record
from mm_models import checkpoint
from tests.mm_data.streams import load_record

FOUR = {"data.batch_size": 4, "data.cache": Cache.NONE, "schedule.steps": 4, "schedule.warmup_steps": 1}
TEXT_ENCODER = {"text_encoder.max_tokens": 16}


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    """The test's one run is the one in the folder."""
    return RunOptions(runs_dir=tmp_path / "runs")


@pytest.fixture
def clips(small: TrainSpec, runs_dir: Path, tmp_path: Path) -> Path:
    """The rendered clips of twelve captions, with a manifest that a test may change."""
    dataset = mm_data.prepare(small.data.dataset, cache_dir=RunOptions(runs_dir=runs_dir).cache_dir)
    folder = tmp_path / "clips"
    folder.mkdir()
    rows = []
    for number, record in enumerate(dataset.records[:12]):
        shutil.copy(record.path, folder / f"{number}.mp4")
        rows.append({"path": f"{number}.mp4", "caption": f"{record.caption} {number}"})
    write_rows(folder, rows)
    return folder


@pytest.fixture
def own(small: TrainSpec, clips: Path) -> TrainSpec:
    manifest = ManifestSpec(name=str(clips), path=str(clips))
    return replace(small, {**FOUR, **TEXT_ENCODER, "data.dataset": manifest})


def write_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_of(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def recaption(folder: Path, captions: dict[int, str]) -> None:
    rows = rows_of(folder)
    write_rows(folder, [{**row, "caption": captions.get(n, row["caption"])} for n, row in enumerate(rows)])


def cut_so_that_the_codec_is_unknown(clip: Path, data: TrainSpec) -> None:
    """Cuts a clip where its index begins to name the codec; which byte it is depends on the writer."""
    content = clip.read_bytes()
    for size in range(content.rindex(b"stsd") - 64, len(content)):
        clip.write_bytes(content[:size])
        try:
            load_record(Record(clip, ""), data.data)
        except BadClip as bad:
            if bad.reason == "FFmpeg doesn't know its codec":
                return
    raise AssertionError("no cut hides the codec")


def test_a_clip_without_a_known_codec_ends_no_training_and_is_told_at_its_end(
    own: TrainSpec, clips: Path, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_so_that_the_codec_is_unknown(clips / "5.mp4", own)
    result = mm_train.train(own, options)
    (listed,) = map(json.loads, (result.run_dir / "quarantine.jsonl").read_text().splitlines())
    assert (listed["index"], listed["reason"]) == (5, "FFmpeg doesn't know its codec")
    assert (result.quarantined, result.steps) == (1, 4)
    told = [line for line in capsys.readouterr().out.splitlines() if "could not be read" in line]
    listed_in = result.run_dir / "quarantine.jsonl"
    why = "1 x index: FFmpeg doesn't know its codec"
    assert told == [f"1 of 12 clips could not be read: {why}; all are listed in {listed_in}"]


@pytest.mark.parametrize("cache", list(Cache))
def test_a_run_that_goes_on_tries_mended_clips_again_in_its_own_order(
    own: TrainSpec, clips: Path, options: RunOptions, capsys: pytest.CaptureFixture[str], cache: Cache
) -> None:
    own = replace(own, "data.cache", cache)
    whole = (clips / "5.mp4").read_bytes()
    for number in (5, 8):
        (clips / f"{number}.mp4").write_bytes(whole[:2000])
    with pytest.raises(StoppedEarly):
        mm_train.train(own, attrs.evolve(options, stop_after=3))
    (folder,) = (options.runs_dir / own.name).iterdir()
    assert len((folder / "quarantine.jsonl").read_text().splitlines()) == 2
    (clips / "5.mp4").write_bytes(whole)
    going_on = attrs.evolve(options, resume=folder.name)
    with pytest.raises(UserError, match=r"5\.mp4 is sha256 .*accept_content"):
        mm_train.train(own, going_on)
    capsys.readouterr()
    result = mm_train.train(own, attrs.evolve(going_on, accept_content=True))
    said = capsys.readouterr().out
    assert "tried again, since their files changed: " in said
    assert str(clips / "5.mp4") in said and str(clips / "8.mp4") not in said
    assert (result.steps, result.quarantined) == (4, 1)


def test_a_bad_clip_without_features_stays_bad_where_its_file_was_only_touched(
    own: TrainSpec, clips: Path, options: RunOptions
) -> None:
    own = replace(own, "data.cache", Cache.LATENTS)
    (clips / "5.mp4").write_bytes(b"no video")
    with pytest.raises(StoppedEarly):
        mm_train.train(own, attrs.evolve(options, stop_after=3))
    os.utime(clips / "5.mp4", (0, 0))
    (folder,) = (options.runs_dir / own.name).iterdir()
    result = mm_train.train(own, attrs.evolve(options, resume=folder.name))
    listed = [json.loads(line)["index"] for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert (listed, result.quarantined) == ([5, 5], 1)


def test_too_long_captions_are_told_by_their_lines_before_there_is_a_run(
    own: TrainSpec, clips: Path, options: RunOptions
) -> None:
    rows = rows_of(clips)
    write_rows(
        clips, [{**rows[n % 12], "caption": f"{n} " + "word " * (19 if n % 2 else 3)} for n in range(60)]
    )
    with pytest.raises(UserError) as caught:
        mm_train.train(own, options)
    told = str(caught.value).splitlines()
    manifest = (clips / "manifest.jsonl").resolve()
    assert told[0].startswith(f"{manifest}:2: the caption '1 word word") and told[0].endswith(
        "has 20 words, 15 fit"
    )
    assert [line.split(": ")[0] for line in told[:20]] == [f"{manifest}:{2 * n}" for n in range(1, 21)]
    assert told[20:] == ["spec.text_encoder.max_tokens: and 10 more problems"]
    assert not (options.runs_dir / own.name).exists()


def test_what_the_encoder_is_given_of_captions_is_counted_before_there_is_a_run(
    own: TrainSpec, clips: Path, options: RunOptions
) -> None:
    how = CaptionSpec(templates=("{caption}", "{caption}" + " word" * 10))
    with pytest.raises(UserError) as caught:
        mm_train.train(replace(own, "data.captions", how), options)
    told = str(caught.value).splitlines()
    assert len(told) == 12 and told[0].endswith("' has 16 words, 15 fit")
    assert not (options.runs_dir / own.name).exists()


def test_random_parts_crops_flips_and_captions_are_the_same_in_a_run_that_goes_on(
    own: TrainSpec, options: RunOptions, metrics_of: Callable[[Path], list[dict[str, Any]]]
) -> None:
    changes = {
        "num_frames": 5,
        "start": ClipStart.RANDOM,
        "resize": Resize.RANDOM_CROP,
        "height": 32,
        "width": 48,
        "flip_share": 0.5,
        "captions": CaptionSpec(templates=("{caption}", "xyz, {caption}")),
    }
    own = replace(own, {f"data.{name}": value for name, value in changes.items()})
    whole = mm_train.train(own, options)
    again = attrs.evolve(options, runs_dir=options.runs_dir / "again")
    with pytest.raises(StoppedEarly):
        mm_train.train(own, attrs.evolve(again, stop_after=2))
    (folder,) = (again.runs_dir / own.name).iterdir()
    result = mm_train.train(own, attrs.evolve(again, resume=folder.name))
    losses = [
        [line["loss"] for line in metrics_of(run) if "loss" in line]
        for run in (whole.run_dir, result.run_dir)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    plain = mm_train.train(replace(own, "data.captions", None), options)
    assert [line["loss"] for line in metrics_of(plain.run_dir) if "loss" in line] != losses[0]


def test_a_run_whose_caption_became_too_long_goes_on_in_its_order_once_it_is_mended(
    own: TrainSpec, clips: Path, options: RunOptions
) -> None:
    before = mm_data.prepare(own.data.dataset, cache_dir=options.cache_dir)
    with pytest.raises(StoppedEarly):
        mm_train.train(own, attrs.evolve(options, stop_after=2))
    (folder,) = (options.runs_dir / own.name).iterdir()
    going_on = attrs.evolve(options, resume=folder.name, accept_content=True)
    recaption(clips, {8: "word " * 16})
    with pytest.raises(UserError, match=r"manifest\.jsonl:9: the caption 'word .* has 16 words, 15 fit"):
        mm_train.train(own, going_on)
    recaption(clips, {8: "word"})
    after = mm_data.prepare(own.data.dataset, cache_dir=options.cache_dir)
    with pytest.raises(UserError, match=r"8\.mp4 is 'word', was 'a .*accept_content"):
        mm_train.train(own, attrs.evolve(going_on, accept_content=False))
    result = mm_train.train(own, going_on)
    assert result.steps == 4
    assert checkpoint.read_state(result.checkpoint)["data"]["digest"] == before.order_key != after.order_key
