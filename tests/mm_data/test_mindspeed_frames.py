"""The frames that MindSpeed-MM trains on, by a plain copy of its published steps, beside ours."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from mm_config.specs import DataSpec, Interpolation, Resize
from mm_data import Record, load_clip, to_model_range
from mm_data.records import Asked, Shape
from mm_data.transforms.framing import size_of


def moving(path: Path, height: int, width: int) -> Path:
    """Twelve frames of waves and edges."""
    rows, columns = np.mgrid[:height, :width]
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=24, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(12):
            waves = [
                np.sin((rows * a + columns * b) / 9 + number) * 110 + 128
                for a, b in ((1, 2), (2, -1), (0, 3))
            ]
            picture = np.stack(waves, -1).astype(np.uint8)
            picture[height // 3 : height // 2, 8 + 3 * number : width // 2] = (250, 20, 60)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    return path


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def dynamic_size(height: int, width: int, max_hxw: int, stride: int) -> tuple[int, int]:
    """`maxhwresize`, then the cut to `hw_stride`."""
    if height * width > max_hxw:
        scale = np.sqrt(max_hxw / (height * width))
        height, width = int(height * scale), int(width * scale)
    return height // stride * stride, width // stride * stride


def chain(clip: torch.Tensor, size: tuple[int, int], antialias: bool) -> torch.Tensor:
    """ResizeVideo(shortside), ToTensorVideo, norm_fun(0.5, 0.5), CenterCropResizeVideo: `[3, T, H, W]`."""
    clip = clip.permute(0, 3, 1, 2)
    (height, width), (new_height, new_width) = clip.shape[-2:], size
    scale = max(new_height / height, new_width / width)
    near = [math.floor(side * scale + 1e-6) for side in (height, width)]
    clip = interpolate(clip, near, mode="bilinear", align_corners=False, antialias=antialias)
    top, left = (round((had - has) / 2.0) for had, has in zip(near, size, strict=True))
    clip = clip[:, :, top : top + new_height, left : left + new_width].float() / 255
    return ((clip - 0.5) / 0.5).permute(1, 0, 2, 3)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("height", "width"), [(144, 256), (256, 144), (98, 130), (64, 96)])
@pytest.mark.parametrize("dynamic", [False, True])
def test_frames_are_those_of_its_chain(tmp_path, data_spec, height, width, antialias, dynamic):
    path = moving(tmp_path / "a.mp4", height, width)
    data: DataSpec = data_spec(
        height=96,
        width=160,
        frame_interval=2,
        resize=Resize.AREA if dynamic else Resize.CENTER_CROP,
        interpolation=Interpolation.BILINEAR_ANTIALIASED if antialias else Interpolation.BILINEAR,
    )
    size = dynamic_size(height, width, 96 * 160, 16) if dynamic else (96, 160)
    assert size_of(data, height, width) == size
    ours = load_clip(Asked(Record(path, ""), 0, Shape(5, *size), ""), data).frames
    frames = torch.from_numpy(decoded(path)[np.arange(0, 12, 2)[:5]])
    theirs = chain(frames, size, antialias)
    assert (to_model_range(ours) - theirs).abs().max() / 2 <= 1e-6
    # Its resizing of 8-bit frames is within a level of one in floating point.
    exact = chain(frames.float(), size, antialias)
    assert (to_model_range(ours) - exact).abs().max() / 2 <= 1.01 / 255


@pytest.mark.parametrize("interpolation", [Interpolation.BILINEAR, Interpolation.BILINEAR_ANTIALIASED])
def test_a_stretched_clip_is_that_of_resize_video_alone(tmp_path, data_spec, interpolation):
    path = moving(tmp_path / "a.mp4", 98, 130)
    data = data_spec(num_frames=5, height=96, width=80, interpolation=interpolation)
    ours = load_clip(Asked(Record(path, ""), 0, Shape(5, 96, 80), ""), data).frames
    clip = torch.from_numpy(decoded(path)[:5]).permute(0, 3, 1, 2)
    smooth = interpolation is Interpolation.BILINEAR_ANTIALIASED
    theirs = interpolate(clip, (96, 80), mode="bilinear", align_corners=False, antialias=smooth)
    np.testing.assert_array_equal(ours, theirs.permute(0, 2, 3, 1))
