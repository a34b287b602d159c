"""Networks whose computation several ranks share: matrices of blocks, and a sample's tokens."""

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_models.parallel.context import Context, context_of, share_tokens
    from mm_models.parallel.shared_attention import over_ranks
    from mm_models.parallel.tensor import split_matrices
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
