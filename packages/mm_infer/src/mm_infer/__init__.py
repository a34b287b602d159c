"""Generation: videos from prompts, with a spec's networks, its sampler and its size.

    import mm_infer

    pipeline = mm_infer.load(SPEC)
    (video,) = pipeline(["a red circle moving up"])
    video.frames  # uint8 [T, H, W, 3]

`generate` does both at once. `GenerationRequest` says more of a video than a prompt: its seed, what it should
not show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mm_config.specs.infer import GenerationRequest

if TYPE_CHECKING:
    from mm_infer.pipeline import Pipeline, Video, generate, load

__all__ = ["GenerationRequest", "Pipeline", "Video", "generate", "load"]


def __getattr__(name: str) -> Any:
    """Imports the pipeline, and torch with it, on first use, so that `mm generate --help` is quick."""
    if name in __all__:
        from mm_infer import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
