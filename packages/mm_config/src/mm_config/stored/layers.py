"""The three layers of a spec, each with a hash of its own.

The model layer is fixed by the weights, the next one by the developer, the request by whoever asks
for a video. Specs that share a layer share its hash, whatever the others are.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast

import attrs

from mm_config.schema.decorator import Role, class_of, tag_of, wire_name
from mm_config.schema.identity import FORMAT_VERSION, JSON, SPEC_ROLES, canonical, encoded

LAYERS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "model": ("model", "start_from", "autoencoder", "text_encoder", "image_encoder"),
        "training": (
            "name",
            "expert",
            "start_mode",
            "diffusion",
            "data",
            "optim",
            "schedule",
            "frozen",
            "lora",
            "ema",
            "validation",
            "precision",
            "seed",
            "fsdp",
            "parallel",
            "recompute",
            "compile",
            "checkpoint",
            "runtime",
            "profiler",
            "memory_snapshot",
        ),
    },
    "infer": {
        "model": (
            "model",
            "boundary",
            "high_noise",
            "low_noise",
            "loras",
            "distilled",
            "autoencoder",
            "text_encoder",
            "image_encoder",
        ),
        "inference": (
            "name",
            "sampler",
            "num_frames",
            "height",
            "width",
            "fps",
            "dtype",
            "negative_prompt",
            "sparse_attention",
            "quantization",
            "feature_cache",
            "runtime",
        ),
        "request": ("samples",),
    },
    "generation-request": {
        "request": (
            "prompt",
            "negative_prompt",
            "seed",
            "num_frames",
            "height",
            "width",
            "image",
            "last_image",
            "strength",
            "video",
        ),
    },
}
"""The fields of each layer by the spec's wire tag; every field of a spec is in exactly one."""


def layer_hashes(spec: Any, roles: frozenset[Role] = SPEC_ROLES) -> dict[str, str]:
    """The 64 hex digits of each layer of a spec.

    Each is the sha256 of the RFC 8785 bytes of `{"v": 1, "kind": <tag>, "layer": <name>, "spec": {...}}`
    with the layer's fields as they stand in the spec's own canonical bytes.

    Args:
        spec: A TrainSpec (`model`, `training`), an InferSpec (`model`, `inference`, `request`) or a
            GenerationRequest (`request`).
        roles: Fields of other roles are left out, as in `canonical_bytes`.

    Raises:
        TypeError: The spec is of another class, which has no layers.
    """
    tag = tag_of(spec)
    if tag not in LAYERS:
        raise TypeError(f"{type(spec).__name__} has no layers; {', '.join(LAYERS)} have")
    fields = cast("dict[str, JSON]", canonical(spec, roles))
    wires = {name: wire_name(one) for name, one in attrs.fields_dict(class_of(spec)).items()}
    hashes: dict[str, str] = {}
    for layer, names in LAYERS[tag].items():
        kept = {key: fields[key] for key in ("~schema", *(wires[name] for name in names)) if key in fields}
        content: JSON = {"v": FORMAT_VERSION, "kind": tag, "layer": layer, "spec": kept}
        hashes[layer] = hashlib.sha256(encoded(content)).hexdigest()
    return hashes
