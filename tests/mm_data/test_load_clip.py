"""What a sample of a real file looks like after all that a spec asks for."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import av
import numpy as np
import pytest

from mm_config.specs import CaptionSpec, ClipStart, DataSpec, Interpolation, Reader, Resize
from mm_data import BadClip, Record, ask, load_clip


@pytest.fixture(scope="module")
def record(tmp_path_factory, coded) -> Record:
    """Forty frames of 64x128 at 24 frames/s, which show their numbers."""
    return Record(coded.write(tmp_path_factory.mktemp("coded") / "a.mp4"), "a number")


@pytest.fixture
def numbers(coded) -> Callable[[Record, DataSpec, str], list[int]]:
    def of(record: Record, data: DataSpec, draw: str = "") -> list[int]:
        return [coded.number(frame) for frame in load_clip(ask(record, data, draw=draw), data).frames.numpy()]

    return of


def test_cuts_intervals_and_starts_choose_frames(record, data_spec, numbers):
    assert numbers(record, data_spec(fps=8.0, num_frames=5)) == [0, 3, 6, 9, 12]
    cut = attrs.evolve(record, cut=(10, 30))
    assert numbers(cut, data_spec(fps=8.0, num_frames=5)) == [10, 13, 16, 19, 22]
    assert numbers(cut, data_spec(frame_interval=4, num_frames=5)) == [10, 14, 18, 22, 26]
    middle = data_spec(frame_interval=2, num_frames=5, start=ClipStart.MIDDLE)
    assert numbers(cut, middle) == [14, 16, 18, 20, 22]
    data = data_spec(num_frames=5, start=ClipStart.RANDOM)
    firsts = {numbers(cut, data, f"0/{epoch}/0")[0] for epoch in range(8)}
    assert len(firsts) > 3 and firsts <= set(range(10, 27))
    with pytest.raises(BadClip, match="sample: frames 30 to 41 are cut out of 40"):
        numbers(attrs.evolve(record, cut=(30, 41)), data)


def test_frames_share_a_scaler_and_are_scaled_as_pyav_scales_each_by_itself(record, data_spec):
    data = data_spec(num_frames=33, height=48, width=80)
    frames = load_clip(ask(record, data), data).frames.numpy()
    with av.open(str(record.path)) as container:
        for ours, frame in zip(frames, container.decode(video=0), strict=False):
            alone = frame.reformat(80, 48, format="rgb24", interpolation="BICUBIC")
            np.testing.assert_array_equal(ours, alone.to_ndarray())


@pytest.mark.parametrize("interpolation", Interpolation)
def test_a_crop_is_a_part_of_the_resized_frame_and_a_flip_its_mirror_image(record, data_spec, interpolation):
    data = data_spec(interpolation=interpolation, num_frames=3)
    whole = load_clip(ask(record, data), data).frames.numpy()
    middle = data_spec(
        interpolation=interpolation, num_frames=3, height=64, width=64, resize=Resize.CENTER_CROP
    )
    np.testing.assert_array_equal(load_clip(ask(record, middle), middle).frames, whole[:, :, 32:96])
    mirrored = attrs.evolve(middle, flip_share=1.0)
    np.testing.assert_array_equal(load_clip(ask(record, mirrored), mirrored).frames, whole[:, :, 95:31:-1])
    drawn = attrs.evolve(middle, resize=Resize.RANDOM_CROP)
    lefts = set()
    for epoch in range(6):
        part = load_clip(ask(record, drawn, draw=f"0/{epoch}/0"), drawn).frames.numpy()
        lefts |= {left for left in range(65) if np.array_equal(part, whole[:, :, left : left + 64])}
    assert len(lefts) > 2


@pytest.mark.parametrize("reader", [Reader.PYAV, Reader.DECORD])
def test_a_record_s_own_crop_is_cut_out_before_resizing(record, data_spec, reader):
    data = data_spec(num_frames=3, height=32, width=48, reader=reader)
    whole = load_clip(ask(record, data_spec(num_frames=3)), data_spec(num_frames=3)).frames.numpy()
    part = attrs.evolve(record, crop=(16, 40, 32, 48))
    frames = load_clip(ask(part, data), data).frames.numpy()
    # Readers differ by a level in their conversion to RGB.
    assert np.abs(frames.astype(int) - whole[:, 16:48, 40:88]).max() <= (0 if reader is Reader.PYAV else 4)
    small = attrs.evolve(data, height=16, width=24)
    halved = load_clip(ask(part, small), small).frames.numpy().astype(int)
    means = whole[:, 16:48, 40:88].reshape(3, 16, 2, 24, 2, 3).mean((2, 4))
    assert np.abs(halved - means).mean() < 12
    with pytest.raises(BadClip, match="its crop is outside of 128x64 pixels"):
        load_clip(ask(attrs.evolve(record, crop=(40, 0, 32, 48)), data), data)


def test_the_caption_is_that_of_the_spec(record, data_spec):
    data = data_spec(num_frames=1, captions=CaptionSpec(templates=("ohwx, {caption}",)))
    assert load_clip(ask(record, data), data).caption == "ohwx, a number"
