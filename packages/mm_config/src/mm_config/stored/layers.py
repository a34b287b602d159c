"""The three layers of a spec, each with a hash of its own.

The model layer is fixed by the weights, the next one by the developer, the request by whoever asks
for a video. Specs that share a layer share its hash, whatever the others are.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast

from mm_config.schema.decorator import tag_of
from mm_config.schema.fields import Layer, Role, spec_fields, wire_name
from mm_config.schema.identity import FORMAT_VERSION, JSON, SPEC_ROLES, canonical, encoded
from mm_config.schema.root import layer_of
from mm_config.schema.types import class_of


def layers_of(cls: type[Any]) -> dict[str, tuple[str, ...]]:
    """The layers of a spec class, each with its fields' names in files; empty where it has none."""
    fields = [(layer_of(cls, attribute), wire_name(attribute)) for attribute in spec_fields(cls)]
    found = {layer.value: tuple(wire for own, wire in fields if own is layer) for layer in Layer}
    return {layer: wires for layer, wires in found.items() if wires}


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
    tag, layers = tag_of(spec), layers_of(class_of(spec))
    if not layers:
        raise TypeError(f"{type(spec).__name__} has no layers: its fields say none")
    fields = cast("dict[str, JSON]", canonical(spec, roles))
    hashes: dict[str, str] = {}
    for layer, wires in layers.items():
        kept = {key: fields[key] for key in ("~schema", *wires) if key in fields}
        content: JSON = {"v": FORMAT_VERSION, "kind": tag, "layer": layer, "spec": kept}
        hashes[layer] = hashlib.sha256(encoded(content)).hexdigest()
    return hashes
