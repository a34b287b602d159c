"""What a clip of a moving shape shows, measured from its pixels alone.

Each frame is split into background (the median of its border) and one blob (the largest connected piece that
stands out by half of the frame's contrast). Colour is the blob's mean difference from the background, shape
is its area against its bounding box, direction is a straight line through its centroids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import numpy as np
import torch

from mm_config.specs import COLOURS, FURTHER_COLOURS
from mm_data.shapes.captions import RGB, parse_caption

BORDER = 2
"""Width, in pixels, of the ring whose median is the background."""
PLATEAU = 0.04
"""The share of a frame's pixels, farthest from the background, whose mean distance is the contrast."""
MIN_CONTRAST = 60.0
"""RGB distance from the background, of 441 at most."""
BLOB_AREA = (0.04, 0.35)
"""Smallest and largest blob, as a share of the picture."""
MIN_BLOB_SHARE = 0.7
"""Of all pixels that stand out, the share that must lie in the blob."""
MIN_GOOD_FRAMES = 0.7
"""The share of frames that must show one blob."""
MIN_PATH = 1 / 8
"""From the first to the last frame, as a share of the picture's side."""
MIN_STRAIGHTNESS = 2.0
"""The path's extent along its main axis against the other axis."""
MIN_COSINE = 0.8
"""Between the blob's colour and a named colour, both as differences from the background."""
CIRCLE_FILL = 0.6
"""Smallest area against bounding box of a circle, which fills pi / 4 = 0.785."""
SQUARE_FILL = 0.895
"""Smallest area against bounding box of a square, which fills it: half-way between both, in the ideal."""
EDGE_PIXELS = 5
"""Pixels of a row or a column that must stand out for it to belong to the bounding box."""


@attrs.frozen
class Measured:
    """What a clip shows; None where it can't be told."""

    colour: str | None
    """Its name, as in prompts."""
    shape: str | None
    """Its name, as in prompts."""
    direction: str | None
    """Its name, as in prompts."""


def measure(frames: np.ndarray | torch.Tensor, colours: Sequence[str] = COLOURS) -> Measured:
    """Measures one clip, uint8 RGB `[T, H, W, 3]`; its colour is the nearest of `colours`."""
    pixels = frames.cpu().numpy() if isinstance(frames, torch.Tensor) else frames
    pixels = pixels.astype(np.float64)
    num_frames, height, width, _ = pixels.shape
    background = _background(pixels)
    difference = pixels - background[:, None, None]
    distance = np.linalg.norm(difference, axis=-1)
    contrast = _contrast(distance)
    standing_out = distance / np.maximum(contrast, 1e-6)[:, None, None]
    outstanding = standing_out >= 0.5
    blobs = largest_pieces(outstanding)
    area = blobs.sum(axis=(1, 2))
    good = np.flatnonzero(
        (contrast >= MIN_CONTRAST)
        & (area >= BLOB_AREA[0] * height * width)
        & (area <= BLOB_AREA[1] * height * width)
        & (area >= MIN_BLOB_SHARE * outstanding.sum(axis=(1, 2)))
    )
    if len(good) < MIN_GOOD_FRAMES * num_frames:
        return Measured(None, None, None)
    return Measured(
        colour=_colour(difference[good], blobs[good], np.median(background, axis=0), colours),
        shape=_shape(standing_out[good], blobs[good]),
        direction=_direction(blobs[good], good, num_frames),
    )


def score(videos: Iterable[np.ndarray | torch.Tensor], captions: Sequence[str]) -> dict[str, float]:
    """The shares (0 to 1) of videos with the colour, the shape and the direction of their captions.

    Raises:
        UserError: A caption is not of the form that can be scored.
    """
    wanted = [parse_caption(caption) for caption in captions]
    colours = told_apart(captions)
    measured = [attrs.astuple(measure(video, colours)) for video in videos]
    right = [
        [got == want for got, want in zip(one, asked, strict=True)]
        for one, asked in zip(measured, wanted, strict=True)
    ]
    shares = np.mean(right, axis=0)
    return dict(zip(("colour", "shape", "direction"), map(float, shares), strict=True))


def told_apart(captions: Iterable[str]) -> tuple[str, ...]:
    """The colours that measuring tells apart: the four first ones, or all where captions ask for another."""
    further = {parse_caption(caption)[0] for caption in captions} - set(COLOURS)
    return (*COLOURS, *FURTHER_COLOURS) if further else COLOURS


def largest_pieces(mask: np.ndarray) -> np.ndarray:
    """The largest 4-connected piece of each frame of a mask `[T, H, W]`.

    Labels grow over their neighbours until every piece has one: the largest of its pixels' own numbers.
    """
    _, height, width = mask.shape
    numbers = np.arange(1, height * width + 1, dtype=np.int32).reshape(1, height, width)
    labels = numbers * mask
    while True:
        grown = labels.copy()
        grown[:, 1:] = np.maximum(grown[:, 1:], labels[:, :-1])
        grown[:, :-1] = np.maximum(grown[:, :-1], labels[:, 1:])
        grown[:, :, 1:] = np.maximum(grown[:, :, 1:], labels[:, :, :-1])
        grown[:, :, :-1] = np.maximum(grown[:, :, :-1], labels[:, :, 1:])
        grown *= mask
        if np.array_equal(grown, labels):
            break
        labels = grown
    sizes = [np.bincount(frame.ravel(), minlength=2) for frame in labels]
    largest = np.array([size[1:].argmax() + 1 for size in sizes])
    return mask & (labels == largest[:, None, None])


def _background(pixels: np.ndarray) -> np.ndarray:
    """The median colour `[T, 3]` of each frame's border."""
    ring = np.ones(pixels.shape[1:3], bool)
    ring[BORDER:-BORDER, BORDER:-BORDER] = False
    return np.median(pixels[:, ring], axis=1)


def _contrast(distance: np.ndarray) -> np.ndarray:
    """How far `[T]` the most distant pixels of each frame are from the background."""
    flat = distance.reshape(len(distance), -1)
    count = int(PLATEAU * flat.shape[1])
    return np.partition(flat, -count, axis=1)[:, -count:].mean(axis=1)


def _direction(blobs: np.ndarray, times: np.ndarray, num_frames: int) -> str | None:
    _, height, width = blobs.shape
    area = blobs.sum(axis=(1, 2))
    centre_x = (blobs.sum(axis=1) * np.arange(width)).sum(axis=1) / area
    centre_y = (blobs.sum(axis=2) * np.arange(height)).sum(axis=1) / area
    moved_x, moved_y = (np.polyfit(times, c, 1)[0] * (num_frames - 1) for c in (centre_x, centre_y))
    if abs(moved_x) >= max(MIN_PATH * width, MIN_STRAIGHTNESS * abs(moved_y)):
        return "right" if moved_x > 0 else "left"
    if abs(moved_y) >= max(MIN_PATH * height, MIN_STRAIGHTNESS * abs(moved_x)):
        return "down" if moved_y > 0 else "up"
    return None


def _colour(
    difference: np.ndarray, blobs: np.ndarray, background: np.ndarray, colours: Sequence[str]
) -> str | None:
    mean = np.mean([frame[blob].mean(axis=0) for frame, blob in zip(difference, blobs, strict=True)], axis=0)
    cosines = {name: _cosine(np.array(RGB[name]) - background, mean) for name in colours}
    name = max(cosines, key=cosines.__getitem__)
    return name if cosines[name] >= MIN_COSINE else None


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))


def _shape(standing_out: np.ndarray, blobs: np.ndarray) -> str | None:
    fill = float(np.median([_fill(soft, blob) for soft, blob in zip(standing_out, blobs, strict=True)]))
    if fill < CIRCLE_FILL:
        return None
    return "square" if fill >= SQUARE_FILL else "circle"


def _fill(soft: np.ndarray, blob: np.ndarray) -> float:
    """A blob's area against its bounding box, both with sub-pixel edges; 0 where there is no box."""
    near = np.lib.stride_tricks.sliding_window_view(np.pad(blob, 2), (5, 5)).any(axis=(2, 3))
    part = np.clip(soft, 0, 1) * near
    columns, rows = np.sort(part, axis=0)[-EDGE_PIXELS], np.sort(part, axis=1)[:, -EDGE_PIXELS]
    if columns.max() < 0.5 or rows.max() < 0.5:
        return 0.0
    return float(blob.sum() / (_extent(columns) * _extent(rows)))


def _extent(profile: np.ndarray) -> float:
    """The width over which a profile is at least a half, interpolated linearly at both ends."""
    inside = np.flatnonzero(profile >= 0.5)
    padded = np.pad(profile, 1)
    first, last = inside[0] + 1, inside[-1] + 1
    left = first - (padded[first] - 0.5) / (padded[first] - padded[first - 1])
    right = last + (padded[last] - 0.5) / (padded[last] - padded[last + 1])
    return float(right - left)
