"""Names of modules in the original networks as ours, which are diffusers'."""

from __future__ import annotations

import re

from mm_config.importing.nodes import as_in_file
from mm_config.schema.types import is_tuple

MODULES = {
    "head": "proj_out",
    "patch_embedding": "patch_embedding",
    "text_embedding": "condition_embedder.text_embedder",
    "time_embedding": "condition_embedder.time_embedder",
    "time_projection": "condition_embedder.time_proj",
    "img_emb": "condition_embedder.image_embedder",
}
_INSIDE = {"self_attn": "attn1", "cross_attn": "attn2", "ffn": "ffn"}
_BLOCK = re.compile(r"blocks\.(\{\*\}|\{[0-9,-]+\}|[0-9]+)(?:\.(self_attn|cross_attn|ffn))?")
_LORA = {
    "proj_q": "blocks.*.attn*.to_q",
    "proj_k": "blocks.*.attn*.to_k",
    "proj_v": "blocks.*.attn*.to_v",
    "proj_out": "blocks.*.attn*.to_out.0",
    "ffn.0": "blocks.*.ffn.net.0.proj",
    "ffn.2": "blocks.*.ffn.net.2",
}
ENCODERS = ("ae", "text_encoder")
"""Modules beside the network."""


def module_pattern(name: str) -> str | None:
    """`predictor.blocks.{*}` as `blocks.*`; None for a module that the network has not."""
    name = name.removeprefix("predictor.")
    if name in MODULES:
        return MODULES[name]
    found = _BLOCK.fullmatch(name)
    if found is None:
        return None
    block = "*" if found[1] == "{*}" else found[1]
    return f"blocks.{block}" + (f".{_INSIDE[found[2]]}" if found[2] else "")


def patterns_of(value: object) -> tuple[str, ...]:
    """A list of modules as ours; null is none.

    Raises:
        ValueError: It is no list, or one of them can't be named.
    """
    if value is None:
        return ()
    if not is_tuple(value):
        raise ValueError("expected a list of modules")
    found = [(name, module_pattern(name) if isinstance(name, str) else None) for name in value]
    for name, pattern in found:
        if pattern is None:
            raise ValueError(
                f"{as_in_file(name)} is no module that can be named here; such as predictor.blocks.{{*}}, "
                "predictor.blocks.{0-3} or predictor.head"
            )
    return tuple(pattern for _, pattern in found if pattern is not None)


def lora_target(name: str) -> str | None:
    """`proj_q` as `blocks.*.attn*.to_q`; None for a layer that is not known."""
    return _LORA.get(name)
