"""The processes of one run: how they start, agree, and fail together."""

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_models.ranks.agreeing import agree_on, differences, require_shared
    from mm_models.ranks.joining import backend_for, joined, part
    from mm_models.ranks.together import Ranks, merged
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
