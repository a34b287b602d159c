"""Low-rank adapters: read and written in others' key styles, merged into networks, or kept beside them.

The functions are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_models.lora.adapter import Addition
    from mm_models.lora.files import read_adapters
    from mm_models.lora.merging import merge, unmerge
    from mm_models.lora.unmerged import attach

__all__ = ["Addition", "attach", "merge", "read_adapters", "unmerge"]

_HOMES = {
    "Addition": "mm_models.lora.adapter",
    "attach": "mm_models.lora.unmerged",
    "merge": "mm_models.lora.merging",
    "read_adapters": "mm_models.lora.files",
    "unmerge": "mm_models.lora.merging",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
