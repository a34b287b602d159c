"""Generated videos, told apart by their encoded frames, and their score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mm_config.reproducing.difference import FRAMES, Difference, shares
from mm_config.runs.record import REQUESTS_FILE, read_result
from mm_config.stored.mp4 import frames_digest

_SHOWN_DIGITS = 12


def videos_of(run_dir: Path) -> dict[str, Path | str]:
    """The videos of a run by file name: where they lie or, of those that it wrote outside of its folder and
    that are not there any more, the digest of the frames as it wrote them."""
    files: dict[str, Path | str] = {file.name: file for file in sorted((run_dir / "samples").glob("*.mp4"))}
    if (run_dir / REQUESTS_FILE).is_file():
        listed: list[dict[str, str]] = read_result(run_dir).get("videos", [])
        told = [one for one in listed if one.keys() >= {"name", "path", "frames"}]
        return {one["name"]: _written(one) for one in told} | files
    return files


def video_at(run_dir: Path, place: int) -> Path:
    """The video of a finished run's request."""
    return Path(read_result(run_dir)["videos"][place]["path"])


def frames_at(run_dir: Path, place: int) -> str | None:
    """The digest of the frames of a request's video when it was written; None where it was not recorded."""
    listed: list[dict[str, str]] = read_result(run_dir).get("videos", [])
    return listed[place].get("frames") if place < len(listed) else None


def batch_at(run_dir: Path, place: int) -> range:
    """The places of the requests whose videos were made in one batch with a request's; none where a run
    didn't record it."""
    batches = [one.get("batch") for one in read_result(run_dir).get("videos", [])]
    if place >= len(batches) or (first := batches[place]) is None:
        return range(0)
    return range(first, first + batches.count(first))


def score_of(run_dir: Path) -> Mapping[str, Any]:
    """What the result says of each score; nothing where there is no result or nothing was measured."""
    return read_result(run_dir).get("score") or {}


def video_differences(name: str, old: Path | str | None, new: Path | str | None) -> Iterator[Difference]:
    """That the frames of two videos are not the same, each its file, the digest of its frames, or missing."""
    was, is_now = (frames_digest(one) if isinstance(one, Path) else one or "none" for one in (old, new))
    if was != is_now:
        share = shares(old, new).get("") if isinstance(old, Path) and isinstance(new, Path) else None
        shown, shown_now = was[:_SHOWN_DIGITS], is_now[:_SHOWN_DIGITS]
        yield Difference(f"video {name}", "frames", shown, shown_now, FRAMES, share)


def _written(listed: dict[str, str]) -> Path | str:
    path = Path(listed["path"])
    return path if path.is_file() and frames_digest(path) == listed["frames"] else listed["frames"]
