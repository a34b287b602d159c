"""How the weights of Wan's text encoder are published: transformers' names and the original code's.

The original ones are those of `wan/modules/t5.py`, which `models_t5_umt5-xxl-enc-bf16.pth` bears.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mm_config.families import wan21
from mm_config.specs import RandomWeights, Umt5TextEncoderSpec
from mm_models.weights.names import Dialect
from mm_models.weights.published import Guess, Published, Shapes

_BUCKETS = 32
"""Of distances; each has a bias per head."""
_LAYERS = {
    "layer.0.layer_norm": "norm1",
    "layer.0.SelfAttention.q": "attn.q",
    "layer.0.SelfAttention.k": "attn.k",
    "layer.0.SelfAttention.v": "attn.v",
    "layer.0.SelfAttention.o": "attn.o",
    "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
    "layer.1.layer_norm": "norm2",
    "layer.1.DenseReluDense.wi_0": "ffn.gate.0",
    "layer.1.DenseReluDense.wi_1": "ffn.fc1",
    "layer.1.DenseReluDense.wo": "ffn.fc2",
}
_ROWS = {
    "shared": "token_embedding",
    **{f"encoder.block.*.{ours}": f"blocks.*.{theirs}" for ours, theirs in _LAYERS.items()},
    "encoder.final_layer_norm": "norm",
}


def parameter_shapes(spec: Umt5TextEncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names as in transformers, of tensors that are not another's copy."""
    width, inner = spec.text_dim, spec.num_heads * spec.d_kv
    layers: dict[str, tuple[int, ...]] = {
        "layer.0.layer_norm": (width,),
        "layer.0.SelfAttention.q": (inner, width),
        "layer.0.SelfAttention.k": (inner, width),
        "layer.0.SelfAttention.v": (inner, width),
        "layer.0.SelfAttention.o": (width, inner),
        "layer.0.SelfAttention.relative_attention_bias": (_BUCKETS, spec.num_heads),
        "layer.1.layer_norm": (width,),
        "layer.1.DenseReluDense.wi_0": (spec.d_ff, width),
        "layer.1.DenseReluDense.wi_1": (spec.d_ff, width),
        "layer.1.DenseReluDense.wo": (width, spec.d_ff),
    }
    return {
        "shared.weight": (spec.vocab_size, width),
        **{
            f"encoder.block.{block}.{name}.weight": shape
            for block in range(spec.num_layers)
            for name, shape in layers.items()
        },
        "encoder.final_layer_norm.weight": (width,),
    }


def guess(shapes: Shapes, _: Mapping[str, Any]) -> Guess | None:
    """The spec that weights of these shapes have, which tell it whole; None for another network's."""
    first = "encoder.block.0.layer"
    try:
        vocab_size, width = shapes["shared.weight"]
        heads = shapes[f"{first}.0.SelfAttention.relative_attention_bias.weight"][1]
        spec = Umt5TextEncoderSpec(
            weights=RandomWeights(),
            text_dim=width,
            vocab_size=vocab_size,
            num_layers=sum(name.endswith("SelfAttention.q.weight") for name in shapes),
            num_heads=heads,
            d_kv=shapes[f"{first}.0.SelfAttention.q.weight"][0] // heads,
            d_ff=shapes[f"{first}.1.DenseReluDense.wo.weight"][1],
        )
    except (ArithmeticError, LookupError, ValueError):
        return None
    return Guess(spec, "shapes", _SETTINGS)


def transformers_config(spec: Umt5TextEncoderSpec) -> dict[str, Any]:
    """`config.json` of transformers' `UMT5EncoderModel`; what is not here is the same in all UMT5s."""
    return {
        "architectures": ["UMT5EncoderModel"],
        "model_type": "umt5",
        "vocab_size": spec.vocab_size,
        "d_model": spec.text_dim,
        "d_kv": spec.d_kv,
        "d_ff": spec.d_ff,
        "num_layers": spec.num_layers,
        "num_heads": spec.num_heads,
        "relative_attention_num_buckets": _BUCKETS,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "gated-gelu",
    }


_SETTINGS = frozenset(("weights", "dtype", "max_tokens", "truncate"))
UMT5 = Published(
    about="Wan's text encoder",
    spec=Umt5TextEncoderSpec,
    dialects=(
        Dialect("diffusers", "transformers' UMT5EncoderModel", {ours: ours for ours in _ROWS}),
        Dialect("wan", "the original code's T5Encoder", _ROWS),
    ),
    anchor="shared.weight",
    unused=frozenset(("embed_tokens", "spiece_model")),
    families=lambda: {"wan21.T2V_14B": wan21.T2V_14B.text_encoder},
    guess=guess,
    configs={"diffusers": transformers_config},
    shapes=parameter_shapes,
    part="text_encoder",
    stem="model",
    settings=_SETTINGS,
)
