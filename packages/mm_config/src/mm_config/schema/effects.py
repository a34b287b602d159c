"""What a change of a field alters: the mathematics, the weights, the data order, or less.

The role of a field says whether a change is in a hash; this table says why. A path has the effect of
its longest prefix in the table of the run's kind.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from mm_config.schema.decorator import EXECUTION, SEMANTIC, Role, is_spec, tag_of
from mm_config.schema.root import RootSpec
from mm_config.schema.types import is_tuple


class Effect(enum.Enum):
    """What a change alters."""

    MATHEMATICS = "mathematics"
    """Network, noise, loss, optimiser or sampler: what is computed."""
    WEIGHTS = "weights"
    """The weights that it starts from or works with."""
    DATA_ORDER = "data order"
    """Which clips, captions and noise arrive, or when."""
    REQUESTS = "requests"
    """Which videos are made."""
    MEASUREMENT = "measurement"
    """What is measured of the outcome."""
    RESULT = "result"
    """The result, in a way that no table tells: the field is of a kind of another package."""
    EXECUTION = "execution"
    """How it is computed; the result is the same in exact arithmetic."""
    LABEL = "label"
    """A name or a path."""


_ENCODERS = {
    "autoencoder": Effect.MATHEMATICS,
    "autoencoder.weights": Effect.WEIGHTS,
    "text_encoder": Effect.MATHEMATICS,
    "text_encoder.weights": Effect.WEIGHTS,
    "image_encoder": Effect.MATHEMATICS,
    "image_encoder.weights": Effect.WEIGHTS,
}

TABLES: Mapping[str, Mapping[str, Effect]] = {
    "train": {
        **_ENCODERS,
        "model": Effect.MATHEMATICS,
        "expert": Effect.MATHEMATICS,
        "diffusion": Effect.MATHEMATICS,
        "optim": Effect.MATHEMATICS,
        "schedule": Effect.MATHEMATICS,
        "frozen": Effect.MATHEMATICS,
        "lora": Effect.MATHEMATICS,
        "lora.start_from": Effect.WEIGHTS,
        "ema": Effect.MATHEMATICS,
        "precision": Effect.MATHEMATICS,
        "start_from": Effect.WEIGHTS,
        "start_mode": Effect.WEIGHTS,
        "data": Effect.DATA_ORDER,
        "seed": Effect.DATA_ORDER,
        "validation": Effect.MEASUREMENT,
        "validation.holdout": Effect.DATA_ORDER,
    },
    "infer": {
        **_ENCODERS,
        "model": Effect.MATHEMATICS,
        "boundary": Effect.MATHEMATICS,
        "sampler": Effect.MATHEMATICS,
        "dtype": Effect.MATHEMATICS,
        "sparse_attention": Effect.MATHEMATICS,
        "quantization": Effect.MATHEMATICS,
        "feature_cache": Effect.MATHEMATICS,
        "high_noise": Effect.WEIGHTS,
        "low_noise": Effect.WEIGHTS,
        "distilled": Effect.WEIGHTS,
        "loras": Effect.WEIGHTS,
        "num_frames": Effect.REQUESTS,
        "height": Effect.REQUESTS,
        "width": Effect.REQUESTS,
        "fps": Effect.REQUESTS,
        "negative_prompt": Effect.REQUESTS,
        "samples": Effect.REQUESTS,
        "samples.scorer": Effect.MEASUREMENT,
    },
}
"""Effects of semantic fields by kind of run and prefix of the path."""


def effect_of(spec: RootSpec, path: str, role: Role) -> Effect:
    """What a change of a field alters.

    Args:
        spec: A spec in which the path exists. A field inside a training that weights come from has the
            effect that it has in that training.
        path: Canonical path of the field, `spec.optim.lr`.
        role: The role in force there.
    """
    kind, names = _innermost(spec, path)
    return effect_in(kind, ".".join(names), role)


def effect_in(kind: str, path: str, role: Role) -> Effect:
    """What a change of a field of a kind of run alters.

    Args:
        kind: The run's wire tag, such as `train`.
        path: Path of the field inside the run, `optim.lr`.
        role: The role in force there.
    """
    if role is not SEMANTIC:
        return Effect.EXECUTION if role is EXECUTION else Effect.LABEL
    table, names = TABLES.get(kind, {}), path.split(".")
    prefixes = (".".join(names[:count]) for count in range(len(names), 0, -1))
    return next((table[prefix] for prefix in prefixes if prefix in table), Effect.RESULT)


def _innermost(root: Any, path: str) -> tuple[str, list[str]]:
    """The tag of the innermost run around a field, and the field's path inside that run."""
    kind, inside, value = tag_of(root), list[str](), root
    for name in path.split(".")[1:]:
        if isinstance(value, RootSpec):
            kind, inside = tag_of(value), []
        inside.append(name)
        if is_tuple(value):
            value = value[int(name)]
        elif is_spec(value):
            value = getattr(value, name)
    return kind, inside
