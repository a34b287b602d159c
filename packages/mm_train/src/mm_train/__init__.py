"""The FSDP2 trainer: `train(spec, options) -> TrainResult`."""

from mm_train.training import TrainResult, train

__all__ = ["TrainResult", "train"]
