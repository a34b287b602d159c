"""The training loop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator
from functools import partial

import attrs
import torch

import mm_data
from mm_config.console import progress, say
from mm_config.options import StoppedEarly
from mm_config.running import Stopped
from mm_data import Quarantine
from mm_train.ahead import encoded_ahead
from mm_train.grace import Grace
from mm_train.gradients import gradients_of
from mm_train.looking import looked_at
from mm_train.metrics import Step
from mm_train.optim import learning_rate, set_learning_rate
from mm_train.profiling import recording
from mm_train.recording import Recorder
from mm_train.saving import FAILED
from mm_train.states import TrainState
from mm_train.updating import update
from mm_train.work import Training


def fit(
    training: Training,
    start: TrainState,
    stop_requested: Callable[[], int],
    stop_after: int | None = None,
) -> Generator[Step, bool, TrainState]:
    """Trains from `start` to the last step of the schedule and returns the final state.

    It gives each step and is sent whether to stop after it. Every step appends a line to metrics.jsonl;
    checkpoints are written every `checkpoint.every_steps` steps, after the last step, and when a rank is
    asked to stop.

    Args:
        training: What to train, with what.
        start: What was done before; the time since then counts as well.
        stop_requested: The number of a signal that asks to stop; 0 for none.
        stop_after: The step after which to stop on the way, see `RunOptions`.

    Raises:
        StoppedEarly: `stop_after` came before the end, or what was sent asked for it; the state was saved
            before.
        UserError: Too many clips are bad, a checkpoint of this step or an earlier one can't be written, or
            the loss or the norm of the gradients is not finite; the optimizer has not used such gradients. Or
            a weight or a moment is not finite where a checkpoint is due; that state is not saved.
        Stopped: A signal to stop arrived, or another rank stops; the state was saved before.
    """
    spec, ranks, ledger = training.spec, training.ranks, training.ledger
    steps = spec.schedule.steps
    last_step = min(steps, stop_after or steps)
    first_step, started = start.step, time.perf_counter()
    state = start
    recorder = Recorder(training)
    grace = Grace()
    bad = torch.zeros((), device=training.device)
    training.network.train()
    with (
        mm_data.stream(
            spec.data,
            training.dataset,
            seed=spec.seed,
            plan=training.plan,
            rank=training.layout.data_rank,
            world_size=training.layout.data_ranks,
            start_step=first_step,
            end_step=last_step,
            load=training.source.load,
            workers=training.source.workers,
            quarantine=training.quarantine,
        ) as batches,
        progress(f"train {spec.name}", last_step, "step", spec.runtime.log_every, first_step) as bar,
        recording(training) as reached,
        training.saving as saving,
    ):
        batches = encoded_ahead(training, batches)
        training.clock.restart()
        for step in range(first_step, last_step):
            reached(step)
            training.clock.mark("other")
            ledger.step = step + 1
            asked_at = time.perf_counter()
            with ledger.during("waiting"):
                batch = ranks.together(lambda: next(batches))
            waited = time.perf_counter() - asked_at
            training.clock.mark("data")
            lr = learning_rate(step, spec.optim.lr, spec.schedule)
            set_learning_rate(training.optimizer, lr)

            scalars = gradients_of(training, batch, batches)
            update(training.optimizer, scalars.values(), bad)
            if training.average is not None:
                training.average.update(training.network, step + 1)
            training.clock.mark("optimizer")

            done = recorder.add(batch, scalars, lr, waited)
            bar.advance(1, **recorder.shown)
            ranks.reached(step + 1)
            closed = yield done
            training.clock.mark("other")
            asked = stop_requested()
            with ledger.during("waiting"):
                stop = ranks.largest(saving.failed or (max(asked, signal.SIGINT) if closed else asked))
            if stop == FAILED:
                saving.settle()
            measured = None
            if not stop or step + 1 == steps:
                with ledger.during("looking"):
                    measured = looked_at(training, recorder, step + 1, bar)
            if step > first_step:  # Which may compile.
                grace.step(time.perf_counter() - asked_at)
            elapsed = start.seconds + time.perf_counter() - started
            state = attrs.evolve(
                start, step=step + 1, data=batches.state(), seconds=elapsed, validation=measured
            )
            if stop or state.step == last_step:
                ranks.on_first(partial(_say_unseen, training, batches.quarantine))
            if stop or state.step == last_step or state.step % spec.checkpoint.every_steps == 0:
                recorder.read()
                ranks.on_first(training.run.sync_metrics)
                more, saved_at = training.more_groups(), time.perf_counter()
                with ledger.during("checkpoints"):
                    saving.save(training.network, training.optimizer, state, more, training.sinks)
                    if stop or state.step == last_step:
                        saving.settle()
                ranks.on_first(partial(ledger.write, state.step))
                training.clock.mark("checkpoint")
                if late := grace.late(time.perf_counter() - saved_at + saving.beside):
                    say(late)
            if stop and state.step < steps:
                if closed and not asked:
                    raise StoppedEarly(training.run.path, state.step, steps)
                say(f"stopped after step {state.step}; to go on, add --resume {training.run.path}")
                raise Stopped(stop)
    if state.step < steps:
        raise StoppedEarly(training.run.path, state.step, steps)
    return state


def _say_unseen(training: Training, quarantine: Quarantine) -> None:
    """Says which clips no step trained on."""
    for line in training.plan.counts.left_out_lines():
        say(line)
    if told := quarantine.told():
        say(told)
