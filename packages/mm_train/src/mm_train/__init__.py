"""The FSDP2 trainer: `train(spec, options) -> TrainResult`."""

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_train.training import TrainResult, train
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
