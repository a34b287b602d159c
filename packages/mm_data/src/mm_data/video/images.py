"""Still pictures, which are clips of one frame: PNG, JPEG and WebP.

Pillow reads them, not FFmpeg: PyAV can't tell the side data of pictures that have EXIF, which says how they
are turned.
"""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mm_data.bad import BadClip
from mm_data.video.limits import MAX_PIXELS, fault_of

FORMATS = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF....WEBP": "WEBP"}
"""Pillow's names of the formats that are read, by the first bytes of a file; a dot is any byte."""


def format_of(head: bytes) -> str | None:
    """Pillow's name of the format that a file's first 12 bytes are of; None where it is no picture."""
    plain = head[:4] + b"...." + head[8:12] if head.startswith(b"RIFF") else head
    return next((name for start, name in FORMATS.items() if plain.startswith(start)), None)


def read_image(file: BinaryIO, kind: str) -> np.ndarray:
    """A picture as it is shown, uint8 RGB `[height, width, 3]`: turned by its EXIF, composed on black.

    Args:
        file: An opened file.
        kind: Its format, as `format_of` names it.

    Raises:
        BadClip: It is damaged, an animation, or has more pixels than are allowed.
    """
    file.seek(0)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=(kind,)) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise BadClip("index", f"{opened.width}x{opened.height} pixels are more than {MAX_PIXELS}")
            # A JPEG with several pictures (MPO) shows the first; the others are its depth or brightness.
            if kind != "JPEG" and (count := getattr(opened, "n_frames", 1)) > 1:
                raise BadClip("index", f"the picture is an animation of {count} frames; make it a video")
            return _rgb(ImageOps.exif_transpose(opened))
    except BadClip:
        raise
    except UnidentifiedImageError as error:  # Whose text names the object, not what is wrong.
        raise BadClip("open", f"the {kind} can't be read: its head is damaged") from error
    except Exception as error:  # On damaged files Pillow raises nearly anything.
        raise BadClip("decode", f"the {kind} can't be read: {error}", fault_of(error)) from error


def on_black(rgba: np.ndarray) -> np.ndarray:
    """Pixels `[..., 4]` composed on black: uint8 `[..., 3]`, each colour times its alpha, rounded."""
    return ((rgba[..., :3].astype(np.uint16) * rgba[..., 3:] + 127) // 255).astype(np.uint8)


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would saturate.
        grey = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        return on_black(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))
