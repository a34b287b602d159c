"""The end of a training: its result."""

from __future__ import annotations

from typing import Any

from mm_config.schema import exact_hash, spec_hash
from mm_data import Quarantine
from mm_models import peak_gib
from mm_train import states
from mm_train.adapters import write_adapter
from mm_train.metrics import final_loss
from mm_train.results import TrainResult, result_of
from mm_train.states import TrainState
from mm_train.work import Training


def quarantine_of(training: Training) -> Quarantine:
    """The clips that can't be read."""
    return Quarantine(training.quarantine, training.dataset.records, training.spec.data)


def finish(training: Training, state: TrainState) -> TrainResult:
    """Rank 0 writes result.json; every rank returns the same result."""
    spec, run = training.spec, training.run
    saved = states.step_folder(run.checkpoints_dir, state.step)
    adapter = write_adapter(training)

    def write() -> dict[str, Any]:
        content = {
            "kind": "train",
            "spec_hash": spec_hash(spec),
            "exact_hash": exact_hash(spec),
            "steps": state.step,
            "loss": final_loss(run.metrics_path, state.step),
            "seconds": state.seconds,
            "peak_gib": peak_gib(training.device),
            "checkpoint": saved.relative_to(run.path).as_posix(),
            "quarantined": len(quarantine_of(training).clips),
            "data_digest": training.dataset.order_key,
            **({} if adapter is None else {"adapter": adapter}),
        }
        run.finish(content)
        return content

    return result_of(run, training.ranks.on_first(write))
