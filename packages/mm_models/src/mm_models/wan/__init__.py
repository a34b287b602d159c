"""Wan's diffusion transformer."""

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_models.wan.block import CrossAttention, SelfAttention
    from mm_models.wan.conditioning import TextEmbedder, TimeEmbedder
    from mm_models.wan.feed_forward import FeedForward
    from mm_models.wan.transformer import PatchEmbedding, unpatchify
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
