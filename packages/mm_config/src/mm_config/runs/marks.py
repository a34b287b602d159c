"""What a video or its latents say of themselves: a comment names the spec's hash, the request and the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from mm_config.durable.digests import sha256_of
from mm_config.runs.record import RunRecord
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.identity import spec_hash
from mm_config.schema.root import RootSpec
from mm_config.specs.requests import GenerationRequest
from mm_config.stored.files import from_payload, to_payload
from mm_config.stored.mp4 import comment_of, frames_digest, is_video
from mm_config.stored.safetensors_files import comment_in_header

SUFFIX, LATENTS = ".mp4", ".safetensors"
MARKED = (SUFFIX, LATENTS)
"""Suffixes of files that may carry a comment of ours."""


@attrs.frozen
class Mark:
    """What the comment of a video says."""

    spec_hash: str
    """Of the spec that was carried out, when it was."""
    request: GenerationRequest
    """What the video was asked to be."""
    run: str | None
    """Id of the run that made it; None where none was recorded."""
    uid: str | None
    """Of that run."""
    made_of: str | None
    """What the run was made of; None where that was not recorded."""


def comment_for(spec: RootSpec, request: GenerationRequest, record: RunRecord | None) -> str:
    """The comment of a video, which `mark_of` reads.

    Args:
        spec: What is carried out.
        request: What the video was asked to be.
        record: Of the run that makes it; None for a video that no run records.
    """
    made_by = {
        "spec_hash": spec_hash(spec),
        "request": to_payload(request),
        "run": None if record is None else {"id": record.path, "uid": record.uid},
    }
    if record is not None and record.made_of is not None:
        made_by["made_of"] = record.made_of
    return json.dumps(made_by, ensure_ascii=False, sort_keys=True)


def digests_of(path: Path) -> dict[str, str]:
    """What a result says of a written video: the sha256 of the file, and that of its encoded frames."""
    return {"sha256": sha256_of(path), "frames": frames_digest(path)}


def mark_of(path: Path) -> Mark:
    """What a video, or the latents of one, says of itself.

    Raises:
        UserError: It can't be read, is neither, or carries no comment of ours.
    """
    is_latents = path.suffix == LATENTS
    try:
        comment = comment_in_header(path) if is_latents else comment_of(path)
        whole = is_latents or is_video(path)
    except OSError as error:
        raise UserError(Problem(str(path), f"can't be read: {error.strerror}")) from error
    if not comment and not whole:
        raise UserError(Problem(str(path), "is no video: it is no whole mp4 file"))
    if not comment and is_latents:
        raise UserError(Problem(str(path), "holds no latents of a generation: its header says of no run"))
    if not comment:
        why = (
            "carries no comment that says what made it: it comes from elsewhere, or a program has dropped it"
        )
        raise UserError(Problem(str(path), why))
    try:
        content: Any = json.loads(comment)
        run: dict[str, str] = content.get("run") or {}
        return Mark(
            content["spec_hash"],
            _request(content["request"]),
            run.get("id"),
            run.get("uid"),
            content.get("made_of"),
        )
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        why = f"carries a comment that is none of ours: {comment[:40]!r}"
        raise UserError(Problem(str(path), why)) from error


def _request(payload: Any) -> GenerationRequest:
    request = from_payload(payload, "request")
    if not isinstance(request, GenerationRequest):
        raise TypeError("is another spec")
    return request
