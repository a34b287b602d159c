"""Rendered clips, and a scorer that reads from pixels what was rendered."""

from __future__ import annotations

import colorsys
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import attrs
import numpy as np
import pytest

from mm_config.schema.errors import UserError
from mm_config.specs.data import DataSpec
from mm_config.specs.datasets import COLOURS, FURTHER_COLOURS, ShapesCaption, ShapesSpec, ShapesStart
from mm_data import prepare
from mm_data.shapes import measure, parse_caption, render, render_dataset, score, verify
from tests.mm_data.streams import load_record

SMALL = ShapesSpec(clips_per_caption=1, num_frames=5)


def test_the_same_settings_give_the_same_frames_and_others_do_not():
    spec, caption = ShapesSpec(), "a red circle moving left"
    frames = render(spec, caption, 3)
    assert frames.shape == (17, 64, 64, 3)
    np.testing.assert_array_equal(frames, render(ShapesSpec(), caption, 3))
    assert int(frames.sum()) == 8_141_144
    everything = b"".join(render(spec, shown, 0).tobytes() for shown in spec.captions)
    assert sha256(everything).hexdigest()[:16] == "e0699f2cb8a1f1db"
    for other in (render(spec, caption, 4), render(ShapesSpec(seed=1), caption, 3)):
        assert not np.array_equal(frames, other)


def test_held_out_clips_are_measured_right_from_their_files(shapes):
    data = DataSpec(dataset=ShapesSpec(), batch_size=1, num_frames=17, height=64, width=64, fps=8.0)
    clips = [load_record(record, data) for record in shapes.records]
    assert len(clips) == 128
    shares = score([clip.frames for clip in clips], [clip.caption for clip in clips])
    assert min(shares.values()) >= 0.99, shares


def test_larger_pictures_are_measured_too():
    spec = ShapesSpec(size=128, num_frames=9)
    captions = spec.captions[::3]
    assert score([render(spec, caption, 0) for caption in captions], captions) == {
        "colour": 1.0,
        "shape": 1.0,
        "direction": 1.0,
    }


def test_shapes_that_start_near_the_middle_hide_their_direction_and_captions_can_hide_the_rest(tmp_path):
    spec = ShapesSpec(
        clips_per_caption=2,
        start=ShapesStart.MIDDLE,
        caption=ShapesCaption.DIRECTION,
        colours=("white", "red"),
    )
    dataset = prepare(spec, cache_dir=tmp_path)
    captions = [record.caption for record in dataset.records]
    assert captions == [f"moving {way}" for way in ("left", "right", "up", "down") for _ in "12"] * 4
    data = DataSpec(dataset=spec, batch_size=1, num_frames=17, height=64, width=64, fps=8.0)
    for record, shown in zip(dataset.records, [shown for shown in spec.shown for _ in "12"], strict=True):
        frames = load_record(record, data).frames.numpy()
        assert attrs.astuple(measure(frames, COLOURS + FURTHER_COLOURS)) == parse_caption(shown)
        # The shape's middle and half its width, of pixels that are nearer to it than to the background.
        inside = np.abs(frames[[0, -1]].astype(float) - frames[:1, :1, :1]).max(-1) >= 85
        ends = np.array(
            [[np.flatnonzero(one)[[0, -1]] + (0, 1) for one in inside.any(axis)] for axis in (1, 2)]
        )
        start, end = ends.mean(-1).T
        assert np.abs(start - 32).max() <= 3.6, shown
        assert 10.4 <= np.abs(end - start).max() <= 15.6 and np.abs(end - start).min() <= 0.6, shown
        assert 9.4 <= np.diff(ends[:, 0]).max() / 2 <= 13.6, shown


def test_each_further_colour_is_measured_and_none_is_taken_for_another():
    everything = COLOURS + FURTHER_COLOURS
    spec = ShapesSpec(colours=everything, seed=5)
    captions = spec.captions[::3]
    assert {parse_caption(caption)[0] for caption in captions} == set(everything)
    assert min(score([render(spec, caption, 0) for caption in captions], captions).values()) == 1.0
    # Where the first four alone are told apart, the nearest of them is said, or none.
    said = [measure(render(spec, f"a {colour} circle moving up", 0)).colour for colour in FURTHER_COLOURS]
    assert said == ["blue", "blue", "yellow", "yellow"]


@pytest.mark.parametrize("sigma", [10, 40, 120])
def test_noise_shows_nothing(sigma):
    rng = np.random.default_rng(0)
    noise = np.clip(rng.normal(128, sigma, (32, 17, 64, 64, 3)), 0, 255).astype(np.uint8)
    shares = score(noise, ShapesSpec().captions)
    assert max(shares.values()) <= 0.05, shares


def test_a_resting_shape_has_no_direction_and_a_blank_clip_shows_nothing():
    frames = render(ShapesSpec(), "a blue square moving up", 0)
    resting = measure(np.repeat(frames[8:9], 17, axis=0))
    assert (resting.colour, resting.shape, resting.direction) == ("blue", "square", None)
    blank = measure(np.full_like(frames, 30))
    assert (blank.colour, blank.shape, blank.direction) == (None, None, None)


def test_shares_count_each_property_on_its_own():
    frames = render(ShapesSpec(), "a green square moving up", 0)
    captions = ("a green circle moving up", "a red square moving up")
    assert score([frames, frames], captions) == {"colour": 0.5, "shape": 0.5, "direction": 1.0}


def test_captions_of_another_form_are_refused():
    assert parse_caption("a yellow square moving down") == ("yellow", "square", "down")
    with pytest.raises(UserError, match="a colour of red, green, blue, yellow, purple, "):
        parse_caption("a pink square moving down")


def test_a_dataset_is_rendered_once_and_reused(tmp_path):
    first = prepare(SMALL, cache_dir=tmp_path)
    times = {record.path: record.path.stat().st_mtime_ns for record in first.records}
    assert prepare(SMALL, cache_dir=tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert {record.caption for record in first.records} == set(SMALL.captions)
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == [first.root.name]


def test_processes_that_render_at_once_end_with_one_dataset(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: render_dataset(SMALL, tmp_path), range(2)))
    assert folders[0] == folders[1] and list(tmp_path.iterdir()) == folders[:1]
    assert verify(folders[0]) == []


RENDER = """
import sys
from pathlib import Path
from mm_config.specs.datasets import ShapesSpec
from mm_data.shapes import render_dataset
render_dataset(ShapesSpec(clips_per_caption=8, num_frames=2), Path(sys.argv[1]))
"""


def test_what_a_killed_rendering_left_is_not_taken_for_a_dataset(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", RENDER, str(tmp_path)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob(".shapes-*/clips/*.mp4"))) < 10:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait(timeout=60)
    assert not list(tmp_path.glob("shapes-*"))
    folder = render_dataset(ShapesSpec(clips_per_caption=8, num_frames=2), tmp_path)
    assert verify(folder) == [] and len(list(folder.glob("clips/*.mp4"))) == 256


def test_a_folder_that_can_not_be_written_is_an_error(tmp_path):
    (tmp_path / "datasets").write_text("a file")
    with pytest.raises(UserError, match=r"datasets/.*: rendered clips can't be written: Not a directory"):
        prepare(SMALL, cache_dir=tmp_path)


def test_the_order_of_samples_does_not_depend_on_encoded_bytes(tmp_path):
    first = prepare(SMALL, cache_dir=tmp_path / "a")
    second = prepare(SMALL, cache_dir=tmp_path / "b")
    assert first.order_key == second.order_key
    other = prepare(ShapesSpec(clips_per_caption=2, num_frames=5), cache_dir=tmp_path)
    assert other.order_key != first.order_key


def test_damage_to_rendered_files_is_found(tmp_path):
    folder = render_dataset(SMALL, tmp_path)
    assert verify(folder) == []
    clip = folder / "clips/00003.mp4"
    content = bytearray(clip.read_bytes())
    content[-1] ^= 1
    clip.write_bytes(content)
    assert verify(folder) == ["clips/00003.mp4: its content changed"]
    clip.unlink()
    assert verify(folder) == ["clips/00003.mp4: missing"]
    with pytest.raises(UserError, match=r"1 rendered files .* clips/00003.mp4; remove the folder"):
        render_dataset(SMALL, tmp_path)
    provenance = folder / "provenance.json"
    for damage in (
        '{"files": ',
        '{"files": []}',
        '{"files": {"clips": 3}}',
        '{"files": {}',
        "[" * 10_000,
        None,
    ):
        provenance.unlink()
        os.mkfifo(provenance) if damage is None else provenance.write_text(damage)
        with pytest.raises(UserError, match=r"provenance\.json: missing or damaged; remove the folder"):
            render_dataset(SMALL, tmp_path)


def test_provenance_lists_every_file(tmp_path):
    folder = render_dataset(SMALL, tmp_path)
    files = json.loads((folder / "provenance.json").read_text())["files"]
    on_disk = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(files) == on_disk - {"provenance.json"}


HUES = {
    "red": (345, 15),
    "orange": (15, 45),
    "yellow": (45, 70),
    "green": (90, 150),
    "cyan": (170, 200),
    "blue": (210, 260),
    "purple": (270, 310),
}
"""Degrees on the colour wheel, as its sectors are commonly named."""


@pytest.mark.parametrize("colour", [*COLOURS, *FURTHER_COLOURS])
def test_a_colour_is_what_its_word_means(colour: str) -> None:
    spec = ShapesSpec(start=ShapesStart.MIDDLE, colours=(colour,))
    red, green, blue = (int(one) / 255 for one in render(spec, f"a {colour} circle moving up", 0)[0, 32, 32])
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if colour == "white":
        assert saturation < 0.1 and value > 0.85
        return
    low, high = HUES[colour]
    degrees = 360 * hue
    assert low <= degrees <= high if low < high else degrees >= low or degrees <= high
    assert saturation > 0.5 and value > 0.6
