"""Given images: the size of their videos, their pixels, and the lines that bad ones get."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments import wan21_flf2v_14b_infer, wan22_i2v, wan22_ti2v_5b_infer
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.rules import area_size, best_size
from mm_config.schema import UserError
from mm_config.specs import Conditioning, GenerationRequest, ImageFit, InferSpec, RandomWeights
from mm_infer import generate
from mm_infer.images import check_files, frames_of, video_size

I2V = replace(wan22_i2v.SPEC, {"height": 480, "width": 832})
TI2V = replace(wan22_ti2v_5b_infer.SPEC, {"height": 704, "width": 1280})
ORIENTATION = 0x0112


def saved(path: Path, pixels: np.ndarray, **options: object) -> str:
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return str(path)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, channels), dtype=np.uint8)


def first(spec: InferSpec, file: str) -> torch.Tensor:
    return frames_of(spec, GenerationRequest(prompt="x", image=file))[0]


def test_sizes_by_hand() -> None:
    # sqrt(480 * 832 * 1080 / 1920) = 473.97, 29 tokens of 16; the other way 842.6, 52 tokens.
    assert area_size(1080, 1920, 480 * 832, (16, 16)) == (464, 832)
    assert area_size(1920, 1080, 480 * 832, (16, 16)) == (832, 464)
    assert area_size(500, 500, 480 * 832, (16, 16)) == (624, 624)
    assert area_size(480, 832, 480 * 832, (16, 16)) == (480, 832)
    # Width first: 1265.7 gives 1248, then 901120 / 1248 = 722 gives 704, ratio 1.773; height first: 711.96
    # gives 704, then 1280, ratio 1.818. The image has 1.778.
    assert best_size(1080, 1920, 704 * 1280, (32, 32)) == (704, 1248)
    assert best_size(704, 1280, 704 * 1280, (32, 32)) == (704, 1280)
    assert best_size(1000, 1000, 704 * 1280, (32, 32)) == (928, 960)


def test_sizes_are_those_of_wans_code() -> None:
    draws = random.Random(5)
    for _ in range(2000):
        height, width = draws.randint(100, 4000), draws.randint(100, 4000)
        most = draws.choice([480 * 832, 720 * 1280, 704 * 1280])
        # image2video.py, with a stride of 8 and patches of 2.
        aspect_ratio = height / width
        lat_h = round(math.sqrt(most * aspect_ratio) // 8 // 2 * 2)
        lat_w = round(math.sqrt(most / aspect_ratio) // 8 // 2 * 2)
        assert area_size(height, width, most, (16, 16)) == (lat_h * 8, lat_w * 8)
        assert best_size(height, width, most, (32, 32)) == best_output_size(width, height, 32, 32, most)[::-1]


def best_output_size(w: int, h: int, dw: int, dh: int, expected_area: int) -> tuple[int, int]:
    """Width and height, as Wan's `utils.py` writes it."""
    ratio = w / h
    ow = (expected_area * ratio) ** 0.5
    oh = expected_area / ow
    ow1 = int(ow // dw * dw)
    oh1 = int(expected_area / ow1 // dh * dh)
    oh2 = int(oh // dh * dh)
    ow2 = int(expected_area / oh2 // dw * dw)
    ratio1, ratio2 = ow1 / oh1, ow2 / oh2
    if max(ratio / ratio1, ratio1 / ratio) < max(ratio / ratio2, ratio2 / ratio):
        return ow1, oh1
    return ow2, oh2


def test_an_image_of_the_videos_size_is_its_first_frame_to_the_bit(tmp_path: Path) -> None:
    pixels = noise(480, 832)
    file = saved(tmp_path / "a.png", pixels)
    shown = torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
    assert torch.equal(first(I2V, file), shown)
    assert torch.equal(first(replace(I2V, "image_fit", ImageFit.CROP), file), shown)


def test_a_stretched_image_is_interpolated_without_smoothing(tmp_path: Path) -> None:
    spec = replace(I2V, {"height": 64, "width": 64})
    pixels = noise(48, 48)
    made = first(spec, saved(tmp_path / "a.png", pixels))
    # Keys' cubic convolution with a = -0.75, as torch has it, written out; edges repeat.
    weights = np.zeros((64, 48))
    for row in range(64):
        at = (row + 0.5) * 48 / 64 - 0.5
        for tap in range(math.floor(at) - 1, math.floor(at) + 3):
            x, a = abs(at - tap), -0.75
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            weights[row, min(max(tap, 0), 47)] += near if x <= 1 else a * (x**3 - 5 * x**2 + 8 * x - 4)
    expected = np.einsum("yh,xw,hwc->cyx", weights, weights, pixels / 127.5 - 1)
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-5)


def test_a_cut_image_is_the_middle_of_a_covering_one(tmp_path: Path) -> None:
    pixels = noise(900, 1200)
    file = saved(tmp_path / "a.png", pixels)
    request = GenerationRequest(prompt="x", image=file)
    assert video_size(TI2V, request) == (800, 1088)  # 1.36; height first gives 1.4
    for spec, (height, width) in (
        (TI2V, (800, 1088)),
        (replace(I2V, "image_fit", ImageFit.CROP), (480, 832)),
    ):
        # textimage2video.py
        scale = max(width / 1200, height / 900)
        whole = Image.fromarray(pixels).resize(
            (round(1200 * scale), round(900 * scale)), Image.Resampling.LANCZOS
        )
        left, top = (whole.width - width) // 2, (whole.height - height) // 2
        shown = np.asarray(whole.crop((left, top, left + width, top + height))) / 127.5 - 1
        np.testing.assert_allclose(first(spec, file).permute(1, 2, 0), shown, atol=1e-6)


def test_a_last_image_of_another_size_covers_the_first_one(tmp_path: Path) -> None:
    spec = replace(wan21_flf2v_14b_infer.SPEC, {"height": 64, "width": 64})
    start = saved(tmp_path / "a.png", noise(64, 64))
    pixels = noise(96, 64)
    end = saved(tmp_path / "b.png", pixels)
    both = frames_of(spec, GenerationRequest(prompt="x", image=start, last_image=end))
    assert torch.equal(both[1], torch.from_numpy(pixels[16:80]).permute(2, 0, 1) / 127.5 - 1)


def test_an_image_is_upright_and_its_video_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    pixels = noise(832, 480)[:, ::-1]
    file = saved(tmp_path / "a.png", np.ascontiguousarray(np.rot90(pixels)), exif=exif)
    assert video_size(I2V, GenerationRequest(prompt="x", image=file)) == (832, 480)
    assert torch.equal(first(I2V, file), torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 127.5 - 1)


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 100, 200)])
def test_alpha_is_composed_on_the_specs_colour(tmp_path: Path, background: tuple[int, int, int]) -> None:
    rgba = noise(64, 64, 4)
    file = saved(tmp_path / "a.png", rgba)
    spec = replace(I2V, {"height": 64, "width": 64, "image_background": background})
    share = rgba[..., 3:] / 255
    expected = np.rint(rgba[..., :3] * share + np.array(background) * (1 - share))
    shown = (first(spec, file).permute(1, 2, 0) + 1) * 127.5
    np.testing.assert_allclose(shown, expected, atol=1e-3)


def bad_files(folder: Path) -> dict[str, str]:
    """Files that are no image to use, and what is said of them."""
    whole = Path(saved(folder / "cut.png", noise(64, 64))).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no image")
    (folder / "folder").mkdir()
    frames = [Image.fromarray(noise(8, 8 + shift)[:, :8]) for shift in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("1", (12_000, 12_000)).save(folder / "huge.png")
    Image.new("F", (64, 64)).save(folder / "fractions.tiff")
    saved(folder / "long.png", noise(4, 4000))
    saved(folder / "longest.png", noise(2, 4000))
    return {
        "cut.png": "the picture can't be read",
        "text.png": "is none, or its head is damaged",
        "folder": "is no file",
        "missing.png": "there is no such file",
        "moving.gif": "an animation of 3 frames",
        "huge.png": "12000x12000 pixels are more than 89478485",
        "fractions.tiff": "fractions of no known range",
        "long.png": "makes a video of 19968x16, whose width makes 1248 tokens along this axis",
        "longest.png": "4000x2 pixels are too elongated: at the area of 832x480",
    }


def test_each_bad_image_is_one_line_with_its_place(tmp_path: Path) -> None:
    bad = bad_files(tmp_path)
    files = tuple(str(tmp_path / name) for name in bad)
    requests = [GenerationRequest(prompt="x", image=file) for file in (*files, files[0])]
    own = replace(
        I2V, {"samples.prompts": ("x",) * len(files), "samples.images": files, "samples.seeds": (1, 2)}
    )
    for spec, asked, where in (
        (I2V, requests, "request {}.image"),
        (own, own.samples.requests, "spec.samples.images.{}"),
    ):
        with pytest.raises(UserError) as caught:
            check_files(spec, asked)
        assert [problem.path for problem in caught.value.problems] == [
            where.format(index) for index in range(len(bad))
        ]
        for problem, (name, said) in zip(caught.value.problems, bad.items(), strict=True):
            assert said in problem.message and name in problem.message and "\n" not in problem.message


def test_bad_images_are_told_before_weights_are_looked_up(spec: InferSpec, options: RunOptions) -> None:
    clean = replace(
        spec, {"model.conditioning": Conditioning.CLEAN_FIRST_FRAME, "low_noise.name": "no/where"}
    )
    with pytest.raises(UserError) as caught:
        generate(clean, [GenerationRequest(prompt="x", image="no.png")], options=options)
    assert [str(problem) for problem in caught.value.problems] == [
        "request 0.image: no.png: there is no such file"
    ]


def test_a_missing_and_a_needless_image_are_told_before_anything(
    spec: InferSpec, options: RunOptions
) -> None:
    first_frame = {"model.conditioning": Conditioning.FIRST_FRAME, "model.in_channels": 28}
    needy = replace(spec, {**first_frame, "high_noise": RandomWeights(), "low_noise": RandomWeights()})
    with pytest.raises(UserError, match=r"request 0\.image: is missing: conditioning first_frame"):
        generate(needy, ["x"], options=options)
    with pytest.raises(UserError, match=r"request 0\.image: is given, but this network"):
        generate(spec, [GenerationRequest(prompt="x", image="no.png")], options=options)
