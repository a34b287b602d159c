"""The names of features: digests of all that they follow from, so that the right ones are found, or none.

Frames follow from the bytes of a clip, its cut and crop, the shape that is asked for, and the fields of the
data that choose timestamps and framing. The timestamps themselves follow from these, so that a look-up opens
no clip. What encodes is a digest as well, see `Store`: of the encoder, its weights and the numerics.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any

import attrs

from mm_config.schema import canonical
from mm_config.specs import ClipStart, DataSpec, Resize
from mm_data.records import Asked

_BESIDE_FRAMES = {
    "dataset",
    "batch_size",
    "num_frames",
    "height",
    "width",
    "caption_dropout",
    "frame_dropout",
    "captions",
    "max_bad_share",
    "max_bad_clips",
    "order",
    "min_num_frames",
    "drop_short_share",
    "max_aspect_ratio",
    "min_pixels",
    "size_multiple",
    "buckets",
    "precomputed",
    "tails",
    "tokens_per_batch",
    "shuffle_block",
    "variants",
}
"""Fields of the data that say which clips come when and in which shape, and nothing of their frames. A field
that is not here is part of each name: a new one costs a miss at worst."""


def digest_of(content: Any) -> str:
    """The 64 hex digits of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def clip_key(made_with: str, content: str | None, asked: Asked, data: DataSpec) -> str:
    """The name of what an encoder makes of a clip's frames.

    Args:
        made_with: Digest of the encoder, its weights and the numerics.
        content: sha256 of the clip's file, or of its part of a shard; None where it is not there.
        asked: The clip, its shape and what its random choices follow from.
        data: What chooses timestamps and framing.
    """
    record = asked.record
    return digest_of(
        {
            "v": 1,
            "made_with": made_with,
            "clip": [content, record.cut, record.crop],
            "shape": attrs.astuple(asked.shape),
            "data": _of_frames(data),
            "draw": asked.draw if draws(data) else "",
        }
    )


def caption_key(made_with: str, caption: str) -> str:
    """The name of what an encoder makes of a caption, as it is after all that is done to captions."""
    return digest_of({"v": 1, "made_with": made_with, "caption": caption})


@lru_cache(8)
def _of_frames(data: DataSpec) -> dict[str, Any]:
    """The fields that choose timestamps and framing, as JSON."""
    fields = canonical(data)
    assert isinstance(fields, dict)
    return {name: value for name, value in fields.items() if name not in _BESIDE_FRAMES}


def draws(data: DataSpec) -> bool:
    """Whether the frames of a clip depend on random choices."""
    return data.start is ClipStart.RANDOM or data.resize is Resize.RANDOM_CROP or 0 < data.flip_share < 1


def variant_of(asked: Asked, content: str | None, data: DataSpec) -> Asked:
    """The one of a clip's kept variants that a draw takes: its own draw, which knows no seed and no place."""
    number = int.from_bytes(hashlib.sha256(asked.draw.encode()).digest()[:8], "big") % data.variants
    return with_variant(asked, content, number)


def with_variant(asked: Asked, content: str | None, number: int) -> Asked:
    """A variant of a clip by its number."""
    return attrs.evolve(asked, draw=f"variant {number} of {content}")
