"""Generated videos, told apart by their encoded frames, and their score."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mm_config.runs.record import REQUESTS_FILE, RESULT_FILE, read_json
from mm_config.stored.mp4 import frames_digest

_SHOWN_DIGITS = 12


def videos_of(run_dir: Path) -> dict[str, Path | str]:
    """The videos of a run by file name: where they lie in its folder or, of those that it wrote elsewhere and
    that may be anywhere by now, the digest of the frames as it wrote them."""
    files: dict[str, Path | str] = {file.name: file for file in sorted((run_dir / "samples").glob("*.mp4"))}
    if (run_dir / REQUESTS_FILE).is_file():
        return {one["name"]: one["frames"] for one in _result(run_dir).get("videos", [])} | files
    return files


def video_at(run_dir: Path, place: int) -> Path:
    """The video of a finished run's request."""
    return Path(_result(run_dir)["videos"][place]["path"])


def score_of(run_dir: Path) -> Mapping[str, Any]:
    """What the result says of each score; nothing where there is no result or nothing was measured."""
    return _result(run_dir).get("score") or {}


def frames_of(videos: Mapping[str, Path | str], names: Collection[str]) -> dict[str, str]:
    """The start of the sha256 of the encoded frames of the videos that have these names."""
    digests = {
        name: frames_digest(one) if isinstance(one, Path) else one
        for name, one in videos.items()
        if name in names
    }
    return {name: digest[:_SHOWN_DIGITS] for name, digest in digests.items()}


def _result(run_dir: Path) -> Mapping[str, Any]:
    file = run_dir / RESULT_FILE
    return read_json(file) if file.is_file() else {}
