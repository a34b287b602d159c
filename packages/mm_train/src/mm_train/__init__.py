"""Training: a spec's network by flow matching, on one process or on every rank of torchrun.

    import mm_train

    result = mm_train.train(SPEC, on_step=lambda step: print(step.step, step.loss))
    result.checkpoint  # the trained weights, in result.run_dir

`steps` does the same as an iterator. `RunOptions` of mm_config says where runs lie and which one is resumed.
"""

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_train.metrics import Step
    from mm_train.results import TrainResult
    from mm_train.training import steps, train
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
