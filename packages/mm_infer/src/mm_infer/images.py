"""Given images: files become the frames that a video begins, or ends, with.

Shapes: H, W the video's height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

import mm_data
from mm_config import rules
from mm_config.schema import Problem, UserError, concerning, gathering
from mm_config.specs import Conditioning, GenerationRequest, ImageFit, InferSpec
from mm_infer.videos import opened_file, require_frames, shown_size

MAX_PIXELS = 89_478_485
"""Of an image, where Pillow begins to warn of files that are small and unpack to gigabytes."""


def given_files(spec: InferSpec, requests: Sequence[GenerationRequest]) -> dict[str, str]:
    """The given files of requests by canonical path: that in the spec, where they are the spec's own."""
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
        for name in ("image", "last_image", "video")
        if (file := getattr(request, name)) is not None
    }


def check_files(
    spec: InferSpec, requests: Sequence[GenerationRequest], refused: Collection[int] = ()
) -> None:
    """Looks at every given file once, so that a bad one is told before anything is loaded.

    Args:
        spec: The generation.
        requests: What is going to be made.
        refused: The places of requests that something else is wrong with, whose files wait.

    Raises:
        UserError: One can't be read, has too few frames, or makes a video that is too narrow or too large for
            the network; each file is named at the first place that gives it.
    """
    problems: list[Problem] = []
    checked: set[tuple[str, str, InferSpec]] = set()
    paths = {file: path for path, file in reversed(given_files(spec, requests).items())}
    for index, request in enumerate(requests):
        if index in refused:
            continue
        made = rules.spec_of(spec, request)
        for name in ("image", "last_image", "video"):
            file = getattr(request, name)
            if file is None or (name, file, made) in checked:
                continue
            checked.add((name, file, made))
            with gathering(problems), concerning(paths[file]):
                if name == "video":
                    require_frames(file, made.num_frames)
                    _require_fitting(made, file, *shown_size(file))
                else:
                    height, width, _ = _read(spec, file).shape
                    if name == "image":
                        _require_fitting(made, file, height, width)
    if problems:
        raise UserError(list(dict.fromkeys(problems)))


def video_size(spec: InferSpec, request: GenerationRequest) -> tuple[int, int]:
    """Height and width of a request's video in pixels: the spec's or its own, or what a given file makes of
    their area.

    Raises:
        UserError: The image or the video can't be read.
    """
    made = rules.spec_of(spec, request)
    if request.video is not None:
        return _frame_size(made, request.video, *shown_size(request.video))
    if request.image is None:
        return made.height, made.width
    with opened_file(request.image) as file:
        shown = mm_data.shown_size(file)
    return _frame_size(made, request.image, *shown)


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
    size = _frame_size(rules.spec_of(spec, request), files[0], height, width)
    if spec.image_fit is ImageFit.CROP or spec.model.conditioning is Conditioning.CLEAN_FIRST_FRAME:
        return tuple(_pixels(mm_data.covering(one, *size)) for one in pictures)
    alike = [_pixels(mm_data.covering(one, height, width)) for one in pictures]
    return tuple(interpolate(one[None], size, mode="bicubic", align_corners=False)[0] for one in alike)


def _frame_size(spec: InferSpec, file: str, height: int, width: int) -> tuple[int, int]:
    """Height and width of the video that an image or a video of a size makes; of a spec that a request made.

    Raises:
        UserError: Not one token would fit along a side; it names the file.
    """
    if spec.image_fit is ImageFit.CROP:
        return spec.height, spec.width
    area, cell = spec.height * spec.width, rules.cells(spec.model, spec.autoencoder)
    if spec.model.conditioning is Conditioning.CLEAN_FIRST_FRAME:
        size = rules.best_size(height, width, area, cell)
    else:
        size = rules.area_size(height, width, area, cell)
    if 0 in size:
        raise UserError(
            f"{file}: {width}x{height} pixels are too elongated: at the area of {spec.width}x{spec.height} "
            f"not one token of {cell[1]}x{cell[0]} pixels fits; cut it, or set spec.image_fit to crop"
        )
    return size


def _require_fitting(spec: InferSpec, file: str, height: int, width: int) -> None:
    """Raises UserError where the network has no positions for the video that a picture of a size makes."""
    height, width = _frame_size(spec, file, height, width)
    size = spec.num_frames, height, width
    for problem in rules.size_problems(size, spec.model, spec.autoencoder):
        if problem.path in ("height", "width"):
            said = f"{file}: makes a video of {width}x{height}, whose {problem.path} {problem.message}"
            raise UserError(said)


def _read(spec: InferSpec, file: str) -> np.ndarray:
    """uint8 `[height, width, 3]`. Raises UserError."""
    with opened_file(file) as opened:
        return mm_data.read_image(opened, None, spec.image_background, MAX_PIXELS)


def _pixels(picture: np.ndarray) -> Tensor:
    """uint8 `[height, width, 3]` as float32 `[3, height, width]` in [-1, 1]."""
    return mm_data.to_model_range(torch.from_numpy(picture.copy())[None])[:, 0]
