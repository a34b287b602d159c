"""The three layers of a spec, each with a hash of its own.

The model layer is fixed by the weights, the next one by the developer, the request by whoever asks
for a video. Specs that share a layer share its hash, whatever the others are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, cast

from mm_config.schema.decorator import tag_of
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.fields import Layer, Role, spec_fields, wire_name
from mm_config.schema.identity import FORMAT_VERSION, JSON, SPEC_ROLES, canonical, encoded
from mm_config.schema.root import layer_of
from mm_config.schema.suggestions import did_you_mean, nearest
from mm_config.schema.types import class_of, in_error, is_dict
from mm_config.stored.parsing import shown_key

_SCHEMA = "~schema"
"""The key that stands beside the layers where the class has changed its shape, see `migrate`."""


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
        kept = {key: fields[key] for key in (_SCHEMA, *wires) if key in fields}
        content: JSON = {"v": FORMAT_VERSION, "kind": tag, "layer": layer, "spec": kept}
        hashes[layer] = hashlib.sha256(encoded(content)).hexdigest()
    return hashes


def apart(fields: Mapping[str, JSON], cls: type[Any]) -> dict[str, JSON]:
    """A spec's fields in wire form by their layers, `{"model": {...}, "inference": {...}, "request": {...}}`.

    Raises:
        TypeError: The class has no layers.
    """
    if not (layers := layers_of(cls)):
        raise TypeError(f"{cls.__name__} has no layers: its fields say none")
    found: dict[str, JSON] = {_SCHEMA: fields[_SCHEMA]} if _SCHEMA in fields else {}
    for layer, wires in layers.items():
        found[layer] = {wire: fields[wire] for wire in wires}
    return found


def together(layers: Any, cls: type[Any]) -> dict[str, Any]:
    """The fields that `apart` took apart. A key of no layer is left to whoever reads the fields.

    Raises:
        UserError: A layer is missing, unknown or no mapping, or a field stands in another one than its own.
    """
    known = layers_of(cls)
    if not known:
        raise UserError(Problem("layers", f"a {tag_of(cls)} spec has no layers"))
    allowed = ", ".join(known)
    if not is_dict(layers):
        said = f"expected a mapping with the keys {allowed}, got {in_error(layers)}"
        raise UserError(Problem("layers", said))
    missing = [layer for layer in known if layer not in layers]
    fields: dict[str, Any] = {}
    problems: list[Problem] = []
    own = {wire: layer for layer, wires in known.items() for wire in wires}
    for key, held in layers.items():
        at = f"layers.{shown_key(key)}"
        if key == _SCHEMA:
            fields[key] = held
        elif key not in known:
            problems.append(
                Problem(at, f"unknown layer{did_you_mean(key, missing) or f'; allowed: {allowed}'}")
            )
            missing = [layer for layer in missing if layer not in nearest(key, missing)[:1]]
        elif not is_dict(held):
            problems.append(Problem(at, f"expected a mapping, got {in_error(held)}"))
        else:
            wrong = [name for name in held if own.get(name, key) != key]
            problems += [Problem(f"{at}.{name}", f"belongs to the layer {own[name]}") for name in wrong]
            fields |= held
    problems += [Problem(f"layers.{layer}", "missing") for layer in missing]
    if problems:
        raise UserError(problems)
    return fields
