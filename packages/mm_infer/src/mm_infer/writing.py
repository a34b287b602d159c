"""Videos as files: mp4s that say how they were made."""

from __future__ import annotations

import json
from pathlib import Path

from mm_config.schema import UserError, spec_hash
from mm_config.specs import InferSpec
from mm_config.stored import to_payload
from mm_data import write_mp4
from mm_infer.pipeline import Video


def write_video(path: Path, video: Video, spec: InferSpec) -> None:
    """Writes an mp4, whole or not at all, whose comment tag holds the spec's hash and the request.

    Its folder is made where only that one is missing.

    Raises:
        UserError: The file can't be written.
    """
    made_by = {"spec_hash": spec_hash(spec), "request": to_payload(video.request)}
    comment = json.dumps(made_by, ensure_ascii=False, sort_keys=True)
    try:
        path.parent.mkdir(exist_ok=True)
        write_mp4(path, video.frames, spec.fps, comment=comment)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from error
