"""Given images: files become the frames that a video begins, or ends, with.

Shapes: H, W the video's height and width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

import mm_data
from mm_config import rules
from mm_config.schema import Problem, UserError, concerning, gathering
from mm_config.specs import Conditioning, GenerationRequest, ImageFit, InferSpec

MAX_PIXELS = 89_478_485
"""Of an image, where Pillow begins to warn of files that are small and unpack to gigabytes."""


def given_files(spec: InferSpec, requests: Sequence[GenerationRequest]) -> dict[str, str]:
    """The image files of requests by canonical path: that in the spec, where they are the spec's own."""
    if tuple(requests) == spec.samples.requests:
        named = {"images": spec.samples.images, "last_images": spec.samples.last_images}
        return {
            f"spec.samples.{name}.{index}": file
            for name, files in named.items()
            for index, file in enumerate(files)
        }
    return {
        f"request {index}.{name}": file
        for index, request in enumerate(requests)
        for name in ("image", "last_image")
        if (file := getattr(request, name)) is not None
    }


def check_images(spec: InferSpec, requests: Sequence[GenerationRequest]) -> None:
    """Reads every image once, so that a bad one is told before anything is loaded.

    Raises:
        UserError: One can't be read, or makes a video that is too narrow or too large for the network; each
            file is named at the first place that gives it.
    """
    problems: list[Problem] = []
    places: dict[str, str] = {}
    for path, file in given_files(spec, requests).items():
        places.setdefault(file, path)
    for file, path in places.items():
        with gathering(problems), concerning(path):
            height, width, _ = _read(spec, file).shape
            if "last_image" not in path:
                _require_fitting(spec, file, height, width)
    if problems:
        raise UserError(problems)


def video_size(spec: InferSpec, request: GenerationRequest) -> tuple[int, int]:
    """Height and width of a request's video in pixels: the spec's, or what its image makes of them.

    Raises:
        UserError: The image can't be read.
    """
    if request.image is None:
        return spec.height, spec.width
    with _opened(request.image) as file:
        shown = mm_data.shown_size(file)
    return _frame_size(spec, request.image, *shown)


def frames_of(spec: InferSpec, request: GenerationRequest) -> tuple[Tensor, ...]:
    """The given frames of a request, the first before the last: float32 `[3, H, W]` in about [-1, 1].

    Wan's `image2video.py` and `first_last_frame2video.py` stretch the image to the video's size, of nearly
    the same aspect ratio, by bicubic interpolation without antialiasing; a last image of another size covers
    the first one's before. `textimage2video.py` covers the video's size, as `ImageFit.CROP` does here.

    Raises:
        UserError: An image can't be read.
    """
    files = [file for file in (request.image, request.last_image) if file is not None]
    if not files:
        return ()
    pictures = [_read(spec, file) for file in files]
    height, width, _ = pictures[0].shape
    size = _frame_size(spec, files[0], height, width)
    if spec.image_fit is ImageFit.CROP or spec.model.conditioning is Conditioning.CLEAN_FIRST_FRAME:
        return tuple(_pixels(mm_data.covering(one, *size)) for one in pictures)
    alike = [_pixels(mm_data.covering(one, height, width)) for one in pictures]
    return tuple(interpolate(one[None], size, mode="bicubic", align_corners=False)[0] for one in alike)


def _frame_size(spec: InferSpec, file: str, height: int, width: int) -> tuple[int, int]:
    """Height and width of the video that an image of a size makes.

    Raises:
        UserError: Not one token would fit along a side; it names the file.
    """
    if spec.image_fit is ImageFit.CROP:
        return spec.height, spec.width
    area, cell = spec.height * spec.width, rules.cells(spec.model, spec.autoencoder)
    if spec.model.conditioning is Conditioning.CLEAN_FIRST_FRAME:
        size = best_size(height, width, area, cell)
    else:
        size = area_size(height, width, area, cell)
    if 0 in size:
        raise UserError(
            f"{file}: {width}x{height} pixels are too elongated: at the area of {spec.width}x{spec.height} "
            f"not one token of {cell[1]}x{cell[0]} pixels fits; cut it, or set spec.image_fit to crop"
        )
    return size


def area_size(height: int, width: int, area: int, cell: tuple[int, int]) -> tuple[int, int]:
    """An area of an image's aspect ratio, each side rounded down to whole tokens.

    Formula: Wan's `image2video.py`, `lat_h = sqrt(area * h / w) // stride // patch * patch` and so on, in
    integers, where floats may fall one token short.
    """
    rows, columns = cell
    return (
        math.isqrt(area * height // (width * rows**2)) * rows,
        math.isqrt(area * width // (height * columns**2)) * columns,
    )


def best_size(height: int, width: int, area: int, cell: tuple[int, int]) -> tuple[int, int]:
    """At most an area: one side of the image's aspect ratio in whole tokens, the other as long as may be.

    Formula: `best_output_size` of Wan's `utils.py`: of both sides that may come first, the one whose outcome
    is nearer to the aspect ratio.
    """
    rows, columns = cell
    first_height, first_width = area_size(height, width, area, cell)
    if not (first_height and first_width):
        return first_height, first_width
    by_width = area // first_width // rows * rows, first_width
    by_height = first_height, area // first_height // columns * columns

    def apart(size: tuple[int, int]) -> float:
        ratio = size[1] * height / (size[0] * width)
        return max(ratio, 1 / ratio)

    return by_width if apart(by_width) < apart(by_height) else by_height


def _require_fitting(spec: InferSpec, file: str, height: int, width: int) -> None:
    """Raises UserError where the network has no positions for the video that an image of a size makes."""
    height, width = _frame_size(spec, file, height, width)
    sized = GenerationRequest(prompt="a video", height=height, width=width)
    for problem in rules.request_problems(sized, spec):
        if problem.path in ("height", "width"):
            said = f"{file}: makes a video of {width}x{height}, whose {problem.path} {problem.message}"
            raise UserError(said)


def _read(spec: InferSpec, file: str) -> np.ndarray:
    """uint8 `[height, width, 3]`. Raises UserError."""
    with _opened(file) as opened:
        return mm_data.read_image(opened, None, spec.image_background, MAX_PIXELS)


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    """An image file; whatever goes wrong with it is a UserError that names it."""
    if not Path(file).exists():
        raise UserError(f"{file}: there is no such file")
    if not Path(file).is_file():
        raise UserError(f"{file}: is no file")
    try:
        with open(file, "rb") as opened:
            yield opened
    except mm_data.BadClip as error:
        raise UserError(f"{file}: {error.reason}") from error
    except OSError as error:
        raise UserError(f"{file}: can't be read: {error.strerror or error}") from error


def _pixels(picture: np.ndarray) -> Tensor:
    """uint8 `[height, width, 3]` as float32 `[3, height, width]` in [-1, 1]."""
    return mm_data.to_model_range(torch.from_numpy(picture.copy())[None])[:, 0]
