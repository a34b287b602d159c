"""Still pictures: clips of one frame, which are PNG, JPEG and WebP, and the images that requests give.

Pillow reads them, not FFmpeg: PyAV can't tell the side data of pictures that have EXIF, which says how they
are turned.
"""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mm_data.bad import BadClip
from mm_data.video.limits import MAX_PIXELS, fault_of

FORMATS = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF....WEBP": "WEBP"}
"""Pillow's names of the formats that are read, by the first bytes of a file; a dot is any byte."""


Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
BLACK: Colour = (0, 0, 0)


def format_of(head: bytes) -> str | None:
    """Pillow's name of the format that a file's first 12 bytes are of; None where it is no picture."""
    plain = head[:4] + b"...." + head[8:12] if head.startswith(b"RIFF") else head
    return next((name for start, name in FORMATS.items() if plain.startswith(start)), None)


def read_image(
    file: BinaryIO, kind: str | None = None, background: Colour = BLACK, most: int = MAX_PIXELS
) -> np.ndarray:
    """A picture as it is shown, uint8 RGB `[height, width, 3]`: turned by its EXIF, composed on a colour.

    Args:
        file: An opened file.
        kind: Its format, as `format_of` names it; None takes whatever Pillow reads.
        background: Red, green and blue behind what is transparent.
        most: Pixels that it may have.

    Raises:
        BadClip: It is damaged, an animation, or has more pixels than are allowed.
    """
    file.seek(0)
    formats, shown = (None, "picture") if kind is None else ((kind,), kind)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=formats) as opened:
            if opened.width * opened.height > most:
                raise BadClip("index", f"{opened.width}x{opened.height} pixels are more than {most}")
            # A JPEG with several pictures (MPO) shows the first; the others are its depth or brightness.
            if opened.format != "MPO" and (count := getattr(opened, "n_frames", 1)) > 1:
                raise BadClip("index", f"the picture is an animation of {count} frames; make it a video")
            return _rgb(ImageOps.exif_transpose(opened), background)
    except BadClip:
        raise
    except UnidentifiedImageError as error:  # Whose text names the object, not what is wrong.
        why = "it is none, or its head is damaged" if kind is None else "its head is damaged"
        raise BadClip("open", f"the {shown} can't be read: {why}") from error
    except Exception as error:  # On damaged files Pillow raises nearly anything.
        raise BadClip("decode", f"the {shown} can't be read: {error}", fault_of(error)) from error


def shown_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width of a picture that `read_image` reads, from its head alone."""
    file.seek(0)
    with warnings.catch_warnings(action="ignore"), Image.open(file) as opened:
        is_turned = opened.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return (opened.width, opened.height) if is_turned else (opened.height, opened.width)


def covering(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture `[H, W, 3]` resized to cover a size, its middle cut out: uint8 `[height, width, 3]`.

    As Wan's `textimage2video.py` does: Lanczos with antialiasing, then half of what hangs over, rounded down.
    """
    scale = max(width / picture.shape[1], height / picture.shape[0])
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    whole = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return whole[top : top + height, left : left + width]


def composed(rgba: np.ndarray, background: Colour = BLACK) -> np.ndarray:
    """Pixels `[..., 4]` composed on a colour: uint8 `[..., 3]`, mixed by their alpha, rounded."""
    alpha = rgba[..., 3:].astype(np.uint16)
    mixed = rgba[..., :3] * alpha + np.asarray(background, np.uint16) * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def _rgb(image: Image.Image, background: Colour) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would saturate.
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise BadClip("decode", "the picture has more than 16 bits a value; save it with 8 or 16")
        grey = (grey * 255 + 32767) // 65535
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise BadClip("decode", "the picture holds fractions of no known range; save it with 8 bits")
    if image.has_transparency_data:
        return composed(np.asarray(image.convert("RGBA")), background)
    return np.asarray(image.convert("RGB"))
