"""The overview of a job: a page that lists its items, and one picture of all."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mm_config.durable import staged_file
from mm_config.pages import Html, page, section, tag
from mm_config.rules import counted
from mm_config.schema import UserError, spec_hash
from mm_config.specs import InferSpec
from mm_data import Strip, read_mp4, write_contact_sheet
from mm_infer.jobs.items import RESULT, VIDEO, Item, failures

SHEET, INDEX = "contact_sheet.png", "index.html"
_MOST_STRIPS = 100
"""Of a contact sheet; the page lists all."""
_FRAMES, _HEIGHT = 5, 96
"""Pictures of a video, and the height of each in pixels."""


def write_overview(out: Path, spec: InferSpec, made: Sequence[tuple[Item, Path]]) -> None:
    """Writes `index.html`, which opens without a network, and `contact_sheet.png`, of finished items.

    Args:
        out: The job's folder, which may be moved as a whole.
        spec: What the items are made with.
        made: The items with their folders, in the order of the prompts.

    Raises:
        UserError: A file can't be written.
    """
    title, failed = spec.name or "videos", list(failures(out))
    counts = counted(len(made), "video") + (f", {len(failed)} failed" if failed else "")
    subtitle = f"spec {spec_hash(spec)[:12]}    {counts}"
    strips: list[Strip] = []
    cards: list[Html] = []
    for item, folder in made:
        pictures = _pictures(read_mp4(folder / VIDEO))
        if len(strips) < _MOST_STRIPS:
            strips.append(Strip(pictures, item.request.prompt))
        cards.append(_card(item, folder.name, pictures))
    parts = [section("Videos", tag("ul", *cards, class_="cards"))] if cards else []
    parts += [section("Not made", tag("ul", *_not_made(failed)))] if failed else []
    try:
        if strips:
            write_contact_sheet(out / SHEET, strips, title=title, subtitle=subtitle)
        with staged_file(out / INDEX) as stage:
            stage.write_text(page(title, *parts, subtitle=subtitle), "utf-8")
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror or error}") from error


def _card(item: Item, folder: str, pictures: np.ndarray) -> Html:
    request, result = item.request, tag("a", "result", href=f"{folder}/{RESULT}")
    strip = tag("img", src=_data_url(pictures), alt=f"frames of: {request.prompt}")
    return tag(
        "li",
        tag("a", strip, href=f"{folder}/{VIDEO}"),
        tag("p", request.prompt),
        tag("p", f"{item.place}, seed {request.seed}, ", result, class_="faint"),
    )


def _not_made(failed: Sequence[tuple[str, list[str]]]) -> Iterator[Html]:
    for name, problems in failed:
        yield tag("li", tag("strong", name), *(tag("p", problem) for problem in problems))


def _pictures(frames: Tensor) -> np.ndarray:
    """A few frames from the first to the last, small: uint8 `[t, h, w, 3]`."""
    chosen = torch.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().long()
    pictures = [Image.fromarray(frame.numpy()) for frame in frames[chosen]]
    for one in pictures:
        one.thumbnail((10 * _HEIGHT, _HEIGHT))
    return np.stack([np.asarray(one) for one in pictures])


def _data_url(pictures: np.ndarray) -> str:
    """Pictures side by side as a JPEG that stands in the page."""
    encoded = io.BytesIO()
    Image.fromarray(np.concatenate([*pictures], axis=1)).save(encoded, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"
