"""Networks whose computation several ranks share."""

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_models.parallel.tensor import split_matrices
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
