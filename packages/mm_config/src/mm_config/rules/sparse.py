"""Rules on sparse attention: where it begins, and blocks that a video's tokens make."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mm_config.rules.wording import idle_problems
from mm_config.schema.errors import Problem
from mm_config.specs.infer import InferSpec
from mm_config.specs.serving import SparseAttentionSpec, SparsePattern

_MOST_BLOCKS = 4096
"""Of tokens: a mask holds a value for every two of them."""


def sparse_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    """It begins before the end, and a video has several blocks of tokens that lie on a grid.

    Args:
        spec: The inference spec.
        path: Where it stands, for messages that name a second field.
    """
    sparse, steps, layers = spec.sparse_attention, spec.sampler.steps, spec.model.num_layers
    if sparse is None:
        return
    if sparse.dense_steps > steps:
        yield Problem(
            "sparse_attention.dense_steps", f"is {sparse.dense_steps}, above {path}.sampler.steps {steps}"
        )
    if sparse.dense_layers > layers:
        yield Problem(
            "sparse_attention.dense_layers",
            f"is {sparse.dense_layers}, above {path}.model.num_layers {layers}",
        )
    latent_shape = spec.autoencoder.latent_shape(spec.num_frames, spec.height, spec.width)
    tokens, size = spec.model.tokens(latent_shape), sparse.block_size
    blocks, shown = -(-tokens // size), f"{spec.num_frames} frames of {spec.width}x{spec.height}"
    if tokens != math.prod(spec.model.token_grid(latent_shape)):
        message = f"needs a token for each patch of latents, but {shown} have {tokens} tokens"
        yield Problem("sparse_attention", message)
    elif blocks == 1:
        message = f"is {size}, but {shown} have {tokens} tokens: one block leaves nothing out"
        yield Problem("sparse_attention.block_size", f"{message}; choose less, such as {max(1, tokens // 8)}")
    elif blocks > _MOST_BLOCKS:
        message = f"is {size}: {shown} have {tokens} tokens, {blocks} blocks, above {_MOST_BLOCKS}"
        least = -(-tokens // _MOST_BLOCKS)
        yield Problem("sparse_attention.block_size", f"{message}; choose at least {least}")


def pattern_problems(sparse: SparseAttentionSpec) -> Iterator[Problem]:
    """Each pattern has a setting of its own."""
    if sparse.pattern is not SparsePattern.RADIAL:
        yield from idle_problems(sparse, ["decay_factor"], "pattern = radial")
    if sparse.pattern is not SparsePattern.LOCAL:
        yield from idle_problems(sparse, ["window"], "pattern = local")
