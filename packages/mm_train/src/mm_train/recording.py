"""The numbers of steps: kept on the device, read together now and then, and held against what ends a run."""

from __future__ import annotations

import math

import attrs

from mm_config.schema import UserError
from mm_data import Batch
from mm_train.metrics import Reading, Scalars, Step, read, send
from mm_train.rates import Amount, Rates
from mm_train.work import Training

_DIGITS = 6
"""Of seconds: microseconds."""


@attrs.frozen
class _Done:
    """A step whose numbers are not read yet."""

    step: Step
    """What was given to the caller."""
    indices: tuple[int, ...]
    """Of its clips in the dataset, on this rank."""
    amount: Amount
    """What it counts."""
    device: dict[str, float]
    """Memory and clocks when it was done."""


class Recorder:
    """Remembers steps until their numbers are read, which waits for the device once for all of them.

    All ranks read after the same steps: each `runtime.log_every` steps on an accelerator, after each step on
    a CPU, where reading costs nothing.
    """

    def __init__(self, training: Training) -> None:
        self._training = training
        self._rates = Rates(training)
        self._done: list[_Done] = []
        self._every = 1 if training.reads_at_once else training.spec.runtime.log_every
        self.shown: dict[str, float | str] = {}
        """What a live line says of the step that was read last."""

    def add(self, batch: Batch, scalars: Scalars, lr: float, waited: float) -> Step:
        """Remembers a step that is done, and reads it and those before it where that is due.

        Args:
            batch: What it was done on.
            scalars: Loss, norm of the gradients and what else is to be logged of the step.
            lr: Its learning rate.
            waited: Seconds that this rank waited for the batch.

        Raises:
            UserError: As `read`.
        """
        reading = Reading(dict(scalars), self._training.clock.lap())
        step = Step(batch.step + 1, lr, waited, batch.size, reading)
        amount, device = self._rates.amount(batch), self._rates.of_the_device()
        self._done.append(_Done(step, batch.indices, amount, device))
        if step.step % self._every == 0:
            self.read()
        return step

    def read(self) -> None:
        """Reads all steps that were not read, and writes their lines.

        Raises:
            UserError: A loss or a norm is not finite; names the first such step and its samples. Neither it
                nor a later one has updated anything.
        """
        done, self._done = self._done, []
        read(one.step.reading for one in done)
        for one in done:
            self._require_finite(one)
            self._write(one)

    def _write(self, one: _Done) -> None:
        step, reading = one.step, one.step.reading
        rates = self._rates.of(one.amount, reading.step_seconds)
        self.shown = {"loss": step.loss, "rate": f"{rates['samples_per_second']:.0f} samples/s"}
        self._training.totals.add(**attrs.asdict(one.amount), seconds=reading.seconds)
        line = {
            "step": step.step,
            "lr": step.lr,
            **reading.values,
            **rates,
            "data_wait_seconds": step.data_wait_seconds,
            "step_seconds": reading.step_seconds,
            "seconds": {part: round(spent, _DIGITS) for part, spent in reading.seconds.items()},
            **one.device,
        }
        send(self._training.sinks, line)

    def _require_finite(self, one: _Done) -> None:
        loss, norm = one.step.loss, one.step.grad_norm
        if math.isfinite(loss) and math.isfinite(norm):
            return
        training = self._training
        indices = [index for part in training.ranks.gather(list(one.indices)) for index in part]
        raise UserError(
            f"step {one.step.step}: the loss is {loss}, the norm of the gradients {norm}; "
            f"nothing was updated. Samples: {', '.join(map(str, indices))} of {training.dataset.root}. "
            f"{training.saving.last_good()}; a lower spec.optim.lr may help"
        )
