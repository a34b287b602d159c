"""Training: a spec's network by flow matching, on one process or on every rank of torchrun.

    import mm_train

    result = mm_train.train(SPEC, on_step=lambda step: print(step.step, step.loss))
    result.checkpoint  # the trained weights, in result.run_dir

`steps` does the same as an iterator. `RunOptions` of mm_config says where runs lie and which one is resumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_train.training import Step, TrainResult, steps, train

__all__ = ["Step", "TrainResult", "steps", "train"]


def __getattr__(name: str) -> Any:
    """Imports the trainer, and torch with it, on first use, so that a spec is checked quickly."""
    if name in __all__:
        from mm_train import training

        return getattr(training, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
