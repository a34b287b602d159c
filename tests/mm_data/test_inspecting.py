"""An inspection finds what was put into the clips, by numbers written by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest
from PIL import Image

from mm_config.schema import UserError
from mm_config.specs import DataSpec
from mm_data import Dataset, Record
from mm_data.looking.inspect import VERB
from mm_data.looking.inspection import Inspection, inspected
from mm_data.looking.page import html_of
from mm_data.looking.peeking import PICTURE, peek
from mm_data.looking.subject import Subject
from mm_data.looking.text import as_json, rates, sizes, tell
from tests.mm_data.looked import EVIL, indexed, moving, training


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("looked")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return indexed(folder)


@pytest.fixture(scope="module")
def data(data_spec: Callable[..., DataSpec]) -> DataSpec:
    """Takes clips of 9 frames at 8 frames/s that are at most 3 times as long as high."""
    return data_spec(num_frames=9, height=64, width=96, fps=8.0, max_aspect_ratio=3.0)


@pytest.fixture(scope="module")
def found(dataset: Dataset, data: DataSpec) -> Inspection:
    return inspected(Subject("clips", data.dataset, dataset, data, seed=0), 200)


def test_what_clips_measure_and_how_long_captions_are(found: Inspection) -> None:
    assert found.clips == 6 and [peek.bad for peek in found.peeks] == [""] * 6
    assert found.numbers.frames.tolist() == [40, 20, 3, 12, 40, 40]
    assert found.numbers.seconds.tolist() == [5.0, 2.5, 0.375, 1.5, 5.0, 5.0]
    assert found.numbers.words.tolist() == [len(EVIL.split()), 4, 3, 3, 5, 3]
    assert found.numbers.characters.tolist() == [len(EVIL), 8, 13, 13, 25, 13]
    assert sizes(found) == {"96x64": 4, "128x32": 1, "64x96": 1} and rates(found) == {"8": 6}


def test_what_is_left_out_and_why(found: Inspection) -> None:
    assert found.counts is not None and found.counts.clips == 4
    assert found.states[0] == "9x64x96" == found.states[3] and found.states[4:] == ["9x64x96"] * 2
    assert "max_aspect_ratio" in found.states[1] and "short" in found.states[2]
    reasons = found.left_out
    assert reasons["no such file"] == reasons[found.states[1]] == reasons[found.states[2]] == 1
    assert sum(reasons.values()) == 4, "and the file that ends early"


def test_what_is_there_twice(found: Inspection) -> None:
    assert [found.names(group) for group in found.equal] == [["long.mp4", "copy.mp4"]]
    assert [found.names(group) for group in found.alike] == [["long.mp4", "copy.mp4", "again.mp4"]]


def test_the_picture_is_the_middle_frame(found: Inspection) -> None:
    picture = Image.open(io.BytesIO(found.peeks[0].picture))
    assert picture.format == "JPEG" and picture.size == (96, 64)
    shown, frames = np.asarray(picture, float), moving(40, 64, 96, seed=0).numpy().astype(float)
    distances = np.abs(frames - shown).mean(axis=(1, 2, 3))
    assert distances.argmin() == 20


def test_a_large_clip_has_a_small_picture(tmp_path: Path, dataset: Dataset) -> None:
    record = attrs.evolve(dataset.records[0], crop=(10, 0, 20, 96))
    assert Image.open(io.BytesIO(peek(record, 0).picture)).size == (96, 20)
    assert peek(record, 0).measured == dataset.records[0].measured
    path = tmp_path / "x.mp4"
    path.write_bytes(b"no video")
    unread = peek(Record(path, "x"), 0)
    assert unread.bad and not unread.picture and unread.measured is None
    assert all(side <= most for side, most in zip((96, 20), PICTURE, strict=True))


def test_clips_without_an_index_are_measured_as_they_are_looked_at(
    dataset: Dataset, data: DataSpec, found: Inspection
) -> None:
    plain = [attrs.evolve(record, measured=None) for record in dataset.records]
    plain.append(Record(dataset.root / "broken.mp4", "broken"))
    subject = Subject("clips", data.dataset, Dataset(dataset.root, plain, "key"), None, 0)
    seen = inspected(subject, 200)
    assert seen.numbers.frames.tolist() == found.numbers.frames.tolist()
    assert seen.numbers.seconds.tolist() == found.numbers.seconds.tolist()
    assert (seen.equal, seen.alike) == (found.equal, found.alike)
    assert sum(seen.unreadable.values()) == 1 and seen.counts is None


def test_a_training_that_would_not_begin_is_still_looked_at(
    dataset: Dataset, data: DataSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = attrs.evolve(data, min_pixels=10**6)
    found = inspected(Subject("clips", data.dataset, dataset, strict, 0), 2)
    assert "no clip of 6 is left" in found.problem and found.counts is None
    assert [peek.index for peek in found.peeks] == [0, 5] and "min_pixels" in found.states[0]
    tell(found)
    assert "a training would not begin" in capsys.readouterr().out
    assert "A training would not begin" in html_of(found)


def test_the_verb_takes_a_training_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "x.html"
    assert VERB.run([str(training(tmp_path)), "--out", str(page), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["state"]) for one in said["looked_at"]] == [
        ("long.mp4", "17x64x64"),
        ("wide.mp4", "17x64x64"),
    ]
    assert said["quantiles"]["durations"]["1"] == 5.0
    text = page.read_text("utf-8")
    assert EVIL not in text and text.count("data:image/jpeg;base64,") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no-such-thing"], "no such file"),
        (["experiments/tiny.py"], "expected a training spec, or a folder, table or index"),
        (["experiments/tiny_high.py", "--out", "x.txt"], "ends in .html"),
        (["experiments/tiny_high.py", "--out", "no/such/x.html"], "does not exist"),
        (["experiments/tiny_high.py", "--clips", "0"], "at least 1"),
        (["tests", "--spec.seed", "3"], "no field of a spec can be changed here"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        VERB.run(words)
    assert message in str(caught.value) and len(caught.value.problems) == 1


def test_json_says_all_but_the_pictures(found: Inspection) -> None:
    said = json.loads(json.dumps(as_json(found)))
    assert said["buckets"] == [{"shape": "9x64x96", "clips": 4, "batches": "1 of 4", "tail": 0}]
    assert said["looked_at"][1]["measured"] == {"num_frames": 20, "fps": 8.0, "height": 32, "width": 128}
    assert "base64" not in str(said)
