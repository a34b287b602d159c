"""What is looked at between two steps where it is due: the loss on held-out clips, and videos."""

from __future__ import annotations

from mm_config.console import Progress
from mm_train.recording import Recorder
from mm_train.sampling import sampled
from mm_train.validation import validated
from mm_train.work import Training


def looked_at(training: Training, recorder: Recorder, step: int, bar: Progress) -> float | None:
    """Validates and makes videos, each where its cadence says so, and after the last step.

    Args:
        training: What is trained.
        recorder: Reads the steps before first, so that weights that a bad step has left are not looked at.
        step: Steps that are done.
        bar: Tells how far it is.

    Returns:
        The loss on held-out clips; None where it was not due.

    Raises:
        UserError: As `validated` and `sampled`; or the loss of a step before is not finite.
    """
    spec = training.spec
    validates, samples = (
        one is not None and (step % one.every_steps == 0 or step == spec.schedule.steps)
        for one in (spec.validation, spec.samples)
    )
    loss = None
    if validates or samples:
        recorder.read()
    if validates:
        loss = validated(training, step, bar)
        training.clock.mark("validation")
    if samples:
        sampled(training, step, bar)
        training.clock.mark("samples")
    return loss
