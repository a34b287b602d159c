"""What architecture weights of Wan's transformer have, and the configurations that others write for them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import attrs

from mm_config.families import tiny, wan21, wan22
from mm_config.schema import UserError
from mm_config.specs import Conditioning, Family, WanTransformerSpec
from mm_models.weights.published import Guess, Shapes

_COMPUTED_WITH = frozenset(("num_attention_heads", "eps"))
_UNSEEN = _COMPUTED_WITH | {"rope_max_seq_len", "conditioning"}


@cache
def families() -> Mapping[str, WanTransformerSpec]:
    """The networks of the known families by their names, such as `wan22.TI2V_5B`."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": value.model
        for module in (wan21, wan22, tiny)
        for name, value in vars(module).items()
        if isinstance(value, Family) and isinstance(value.model, WanTransformerSpec)
    }


def guess(shapes: Shapes, config: Mapping[str, Any]) -> Guess | None:
    """The spec that some weights have, or None where the tensors that tell it are missing.

    Weights don't show the number of heads, the norms' epsilon and the rotary table's length: these are the
    configuration's, else those of a family with the same shapes, else the heads of the published family
    with the same two widths, and the defaults.

    Args:
        shapes: By our names.
        config: What lies beside the weights, in diffusers' or the original code's names; may be empty.

    Raises:
        UserError: A value of the configuration is none of a network with these shapes.
    """
    try:
        seen = WanTransformerSpec(**_seen(shapes), num_attention_heads=1)
    except (ArithmeticError, LookupError, ValueError):
        return None
    told = _unseen(config)
    exact = {name: one for name, one in families().items() if one.parameter_shapes() == dict(shapes)}
    alike = {name: one for name, one in _of_published_width().items() if _widths(one) == _widths(seen)}
    if "num_attention_heads" in told:
        heads, heads_of, spec = "configuration", "", seen
    elif exact:
        name, spec = next(iter(exact.items()))
        heads, heads_of = "family", f"{name} has these shapes"
    elif alike:
        name, one = next(iter(alike.items()))
        spec = attrs.evolve(seen, num_attention_heads=one.num_attention_heads)
        heads, heads_of = "size", f"{name} has hidden size {seen.hidden_size} and ffn_dim {seen.ffn_dim} too"
    else:
        heads, heads_of, spec = "unknown", "", seen
    spec = attrs.evolve(spec, **told)
    if heads == "configuration" and (problems := list(spec.problems())):
        raise UserError(problems)
    return Guess(spec, heads, _UNSEEN, _COMPUTED_WITH & told.keys(), heads_of)


def _of_published_width() -> Mapping[str, WanTransformerSpec]:
    return {name: one for name, one in families().items() if not name.startswith("tiny.")}


def _widths(spec: WanTransformerSpec) -> tuple[int, int]:
    return spec.hidden_size, spec.ffn_dim


def _seen(shapes: Shapes) -> dict[str, Any]:
    hidden_size, in_channels, *patch = shapes["patch_embedding.weight"]
    blocks = {int(found[1]) for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name))}
    if max(blocks) >= len(shapes):
        raise LookupError("blocks are missing")  # A name may hold any number.
    image = shapes.get("condition_embedder.image_embedder.norm1.weight")
    positions = shapes.get("condition_embedder.image_embedder.pos_embed")
    seen = {
        "hidden_size": hidden_size,
        "in_channels": in_channels,
        "out_channels": shapes["proj_out.bias"][0] // math.prod(patch),
        "patch_size": tuple(patch),
        "ffn_dim": shapes["blocks.0.ffn.net.0.proj.weight"][0],
        "num_layers": max(blocks) + 1,
        "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
        "freq_dim": shapes["condition_embedder.time_embedder.linear_1.weight"][1],
        "cross_attn_norm": "blocks.0.norm2.weight" in shapes,
        "image_dim": image[0] if image else None,
        "image_positions": positions[1] if positions else None,
    }
    return seen | {"conditioning": _conditioning(seen)}


def _conditioning(seen: Mapping[str, Any]) -> Conditioning:
    if seen["image_positions"] is not None:
        return Conditioning.FIRST_AND_LAST_FRAME
    if seen["in_channels"] > seen["out_channels"]:
        return Conditioning.FIRST_FRAME
    # The autoencoder with 48 channels is TI2V's, whose first latent frame may be given.
    return Conditioning.CLEAN_FIRST_FRAME if seen["in_channels"] == 48 else Conditioning.TEXT


def _unseen(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = config.get("num_attention_heads", config.get("num_heads"))
    found = {
        "num_attention_heads": heads,
        "eps": config.get("eps"),
        "rope_max_seq_len": config.get("rope_max_seq_len"),
    }
    return {name: value for name, value in found.items() if value is not None}


def diffusers_config(spec: WanTransformerSpec) -> dict[str, Any]:
    """`config.json` of diffusers' `WanTransformer3DModel`."""
    return {
        "_class_name": "WanTransformer3DModel",
        "patch_size": list(spec.patch_size),
        "num_attention_heads": spec.num_attention_heads,
        "attention_head_dim": spec.attention_head_dim,
        "in_channels": spec.in_channels,
        "out_channels": spec.out_channels,
        "text_dim": spec.text_dim,
        "freq_dim": spec.freq_dim,
        "ffn_dim": spec.ffn_dim,
        "num_layers": spec.num_layers,
        "cross_attn_norm": spec.cross_attn_norm,
        "qk_norm": "rms_norm_across_heads",
        "eps": spec.eps,
        "image_dim": spec.image_dim,
        "added_kv_proj_dim": None if spec.image_dim is None else spec.hidden_size,
        "rope_max_seq_len": spec.rope_max_seq_len,
        "pos_embed_seq_len": spec.image_positions,
    }


_MODEL_TYPES = {
    Conditioning.TEXT: "t2v",
    Conditioning.FIRST_FRAME: "i2v",
    Conditioning.FIRST_AND_LAST_FRAME: "flf2v",
    Conditioning.CLEAN_FIRST_FRAME: "ti2v",
}


def wan_config(spec: WanTransformerSpec) -> dict[str, Any]:
    """`config.json` of the original code's `WanModel`; its text length is 512 everywhere."""
    return {
        "_class_name": "WanModel",
        "model_type": _MODEL_TYPES[spec.conditioning],
        "patch_size": list(spec.patch_size),
        "text_len": 512,
        "in_dim": spec.in_channels,
        "dim": spec.hidden_size,
        "ffn_dim": spec.ffn_dim,
        "freq_dim": spec.freq_dim,
        "text_dim": spec.text_dim,
        "out_dim": spec.out_channels,
        "num_heads": spec.num_attention_heads,
        "num_layers": spec.num_layers,
        "cross_attn_norm": spec.cross_attn_norm,
        "eps": spec.eps,
    }
