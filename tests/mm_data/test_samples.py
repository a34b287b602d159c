"""Samples are the clips of the steps that a training makes, as it is given them."""

from __future__ import annotations

from pathlib import Path

import attrs
import av
import numpy as np
import pytest
from PIL import Image

from mm_config.cli import CommandLine
from mm_config.schema import UserError
from mm_config.specs.data import ClipStart
from mm_data import stream
from mm_data.looking.sample import VERB
from mm_data.looking.samples import samples_of
from mm_data.looking.subject import subject_of
from tests.mm_data.looked import EVIL, training


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def test_samples_are_what_the_model_sees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, experiment = tmp_path / "seen", training(tmp_path)
    given = ["--spec.data.fps", "4", "--spec.data.num-frames", "5", "--spec.data.width", "96"]
    assert VERB.run([str(experiment), "--out", str(out), "-n", "4", *given]) == 0
    assert "4 samples" in capsys.readouterr().out
    lines = (out / "samples.txt").read_text("utf-8").splitlines()
    assert len(lines) == 4 and all("step 0, 5x64x96" in line for line in lines)
    (long, *_) = sorted(out.glob("*-long.mp4"))
    source, shown = decoded(tmp_path / "long.mp4")[:10:2], decoded(long)
    assert shown.shape == source.shape == (5, 64, 96, 3), "every second frame at half the rate"
    errors = np.abs(shown.astype(int) - source)
    assert errors.mean() < 4 and errors.mean() * 3 < np.abs(shown[1:].astype(int) - source[:-1]).mean()
    assert long.with_suffix(".txt").read_text("utf-8") == f"{EVIL}\n"
    assert Image.open(out / "contact_sheet.png").height > 4 * 64 / 2


def test_samples_of_a_step_are_those_that_the_stream_gives(tmp_path: Path) -> None:
    line = CommandLine((str(training(tmp_path)),), {}, (), (), (), ())
    subject = subject_of(line)
    assert subject.data is not None
    data = attrs.evolve(subject.data, flip_share=0.5, start=ClipStart.RANDOM, num_frames=5)
    samples = list(samples_of(attrs.evolve(subject, data=data), 3, data.batch_size + 1))
    assert [sample.step for sample in samples] == [3] * data.batch_size + [4]
    with stream(data, subject.dataset, seed=subject.seed, start_step=3, end_step=4) as batches:
        (batch,) = batches
    assert tuple(sample.asked.index for sample in samples[:-1]) == tuple(batch.indices)
    for sample, item in zip(samples, batch.items, strict=False):
        assert sample.clip is not None and sample.clip.frames.equal(item.frames)


def test_one_frame_is_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "seen"
    VERB.run([str(training(tmp_path)), "--out", str(out), "-n", "1", "--spec.data.num-frames", "1"])
    (picture,) = out.glob("000-*.png")
    assert Image.open(picture).size == (64, 64)


def test_a_clip_that_can_t_be_used_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment, out = training(tmp_path), tmp_path / "seen"
    (tmp_path / "wide.mp4").write_bytes(b"no video")
    VERB.run([str(experiment), "--out", str(out), "-n", "2"])
    assert "can't be used: wide.mp4: " in capsys.readouterr().out
    assert len(list(out.glob("*.mp4"))) == 1 and "left out" in (out / "samples.txt").read_text("utf-8")
    (tmp_path / "long.mp4").unlink()
    with pytest.raises(UserError, match="none of 2 samples can be used"):
        VERB.run([str(experiment), "--out", str(tmp_path / "again"), "-n", "2"])
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experiments/tiny_high.py"], "--out: is missing; name the folder to write"),
        (["experiments/tiny_high.py", "--out", "tests"], "exists already"),
        (["experiments/tiny_high.py", "--out", "x", "-n", "0"], "-n: expected a whole number of at least 1"),
        (["experiments/tiny.py", "--out", "x"], "expected a training spec"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        VERB.run(words)
    assert message in str(caught.value) and len(caught.value.problems) == 1
