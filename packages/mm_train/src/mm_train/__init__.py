"""The FSDP2 trainer: `train(spec, options) -> TrainResult`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_train.training import TrainResult, train

__all__ = ["TrainResult", "train"]


def __getattr__(name: str) -> Any:
    """Imports the trainer, and torch with it, on first use, so that a spec is checked quickly."""
    if name in __all__:
        from mm_train import training

        return getattr(training, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
