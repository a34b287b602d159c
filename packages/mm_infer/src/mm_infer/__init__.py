"""Generation: samplers, the denoising loop over both experts, and the measurement of what it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_infer.pipeline import Video, generate

__all__ = ["Video", "generate"]


def __getattr__(name: str) -> Any:
    """Imports the pipeline, and torch with it, on first use, so that `mm generate --help` is quick."""
    if name in __all__:
        from mm_infer import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
