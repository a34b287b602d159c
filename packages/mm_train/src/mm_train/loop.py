"""The training loop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path

import attrs
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

import mm_data
from mm_config.console import progress, say
from mm_config.options import StoppedEarly
from mm_config.running import Stopped
from mm_config.runs import Run
from mm_config.schema import UserError
from mm_config.specs import TrainSpec
from mm_data import Batch, Dataset, Plan, Quarantine, Stream
from mm_models import flow, torch_dtype
from mm_train import states
from mm_train.batches import latent_shape
from mm_train.clipping import clip_gradients
from mm_train.metrics import Step
from mm_train.noise import NoiseLevels, draw
from mm_train.optim import learning_rate, set_learning_rate
from mm_train.ranks import Ranks
from mm_train.sharding import set_gradient_sync
from mm_train.sources import Source
from mm_train.states import TrainState


@attrs.frozen
class Training:
    """Everything that the loop works with."""

    spec: TrainSpec
    """What is trained."""
    run: Run
    """Where its state, metrics and result go."""
    ranks: Ranks
    """The processes that train it together."""
    device: torch.device
    """Where this process computes."""
    dataset: Dataset
    """The clips."""
    plan: Plan
    """Which of them each step trains on."""
    source: Source
    """How they are loaded and encoded."""
    levels: NoiseLevels
    """The noise levels that the expert is trained on."""
    network: nn.Module
    """Parallelized, on the device, with its weights."""
    optimizer: Optimizer
    """Over the network's trainable parameters."""

    @property
    def quarantine(self) -> Path:
        """The list of clips that can't be read."""
        return self.run.path / "quarantine.jsonl"


def fit(
    training: Training,
    first_step: int,
    seconds_before: float,
    stop_requested: Callable[[], int],
    stop_after: int | None = None,
) -> Generator[Step, bool, TrainState]:
    """Trains from `first_step` to the last step of the schedule and returns the final state.

    It gives each step and is sent whether to stop after it. Every step appends a line to metrics.jsonl;
    checkpoints are written every `checkpoint.every_steps` steps, after the last step, and when a rank is
    asked to stop.

    Args:
        training: What to train, with what.
        first_step: Steps that were done before.
        seconds_before: Time spent on them.
        stop_requested: The number of a signal that asks to stop; 0 for none.
        stop_after: The step after which to stop on the way, see `RunOptions`.

    Raises:
        StoppedEarly: `stop_after` came before the end, or what was sent asked for it; the state was saved
            before.
        UserError: Too many clips are bad, a checkpoint can't be written, or the loss or the norm of the
            gradients is not finite; the optimizer has not used such gradients. Or a weight or a moment is not
            finite where a checkpoint is due; that state is not saved.
        Stopped: A signal to stop arrived, or another rank stops; the state was saved before.
    """
    spec, ranks = training.spec, training.ranks
    steps = spec.schedule.steps
    last_step = min(steps, stop_after or steps)
    started = time.perf_counter()
    state = TrainState(first_step, {}, seconds_before)
    training.network.train()
    with (
        mm_data.stream(
            spec.data,
            training.dataset,
            seed=spec.seed,
            plan=training.plan,
            rank=ranks.rank,
            world_size=ranks.world_size,
            start_step=first_step,
            end_step=last_step,
            load=training.source.load,
            workers=training.source.workers,
            quarantine=training.quarantine,
        ) as batches,
        progress(f"train {spec.name}", last_step, "step", spec.runtime.log_every, first_step) as bar,
    ):
        for step in range(first_step, last_step):
            step_started = time.perf_counter()
            batch = ranks.together(lambda: next(batches))
            data_ready = time.perf_counter()
            lr = learning_rate(step, spec.optim.lr, spec.schedule)
            set_learning_rate(training.optimizer, lr)

            loss, norm = _gradients(training, batch, batches)
            _require_finite(loss, norm, training, batch)
            training.optimizer.step()
            training.optimizer.zero_grad()

            seconds = time.perf_counter() - step_started
            rate = batch.size / seconds
            done = Step(
                step=step + 1,
                loss=loss,
                lr=lr,
                grad_norm=norm,
                samples_per_second=rate,
                data_wait_seconds=data_ready - step_started,
                step_seconds=seconds,
            )
            if ranks.is_first:
                training.run.log(attrs.asdict(done))
            bar.advance(1, loss=loss, rate=f"{rate:.0f} samples/s")
            ranks.reached(step + 1)
            closed = yield done
            elapsed = seconds_before + time.perf_counter() - started
            state = TrainState(step + 1, batches.state(), elapsed)
            asked = stop_requested()
            stop = ranks.largest(max(asked, signal.SIGINT) if closed else asked)
            if stop or state.step == last_step:
                ranks.on_first(partial(_say_unseen, training, batches.quarantine))
            if stop or state.step == last_step or state.step % spec.checkpoint.every_steps == 0:
                ranks.on_first(training.run.sync_metrics)
                states.save(
                    training.run.checkpoints_dir, spec, training.network, training.optimizer, state, ranks
                )
            if stop and state.step < steps:
                if closed and not asked:
                    raise StoppedEarly(training.run.path, state.step, steps)
                say(f"stopped after step {state.step}; to go on, add --resume {training.run.path}")
                raise Stopped(stop)
    if state.step < steps:
        raise StoppedEarly(training.run.path, state.step, steps)
    return state


def _gradients(training: Training, batch: Batch, batches: Stream) -> tuple[float, float]:
    """Fills the gradients with those of the global batch's mean loss, clipped.

    Returns:
        The mean loss over the global batch and the global norm before clipping. Reading them waits for the
        device, once a step: the check before the update is worth more than the launch of the next step.
    """
    loss = _accumulate(training, batch, batches)
    norm = clip_gradients(training.network.parameters(), training.spec.optim.max_grad_norm)
    loss_value, norm_value = torch.stack((loss, norm)).tolist()
    return loss_value, norm_value


def _accumulate(training: Training, batch: Batch, batches: Stream) -> Tensor:
    """Backward passes over the micro-batches of this rank; returns the mean loss over the global batch.

    FSDP2 averages gradients over ranks, so each rank's sum of losses is divided by its share of the batch:
    the mean over ranks then is the mean over the global batch, however it was split. No rank multiplies
    while it reduces, which gloo and HCCL could not do.
    """
    share_of_rank = len(batch.items)
    micro = training.spec.runtime.micro_batch_size
    total = torch.zeros((), device=training.device)
    for places in micro_batches(share_of_rank, micro):
        set_gradient_sync(training.network, on=places.stop == share_of_rank)
        loss = _sample_losses(training, batch, places).sum() / share_of_rank
        loss.backward()
        # The device is still at it: what is next may be copied meanwhile.
        coming = batch.items[places.stop :] or batches.waiting()
        training.source.begin(coming[:micro])
        total += loss.detach()
    if training.ranks.world_size > 1:
        dist.all_reduce(total)
        total /= training.ranks.world_size
    return total


def micro_batches(size: int, micro_batch_size: int | None) -> Iterator[range]:
    """Consecutive places of one rank's share, at most `micro_batch_size` at a time; None takes all."""
    step = micro_batch_size or size
    return (range(start, min(start + step, size)) for start in range(0, size, step))


def _sample_losses(training: Training, batch: Batch, places: range) -> Tensor:
    """`[B]` float32: weighted mean squared error of the predicted velocity, for each sample."""
    spec, device = training.spec, training.device
    positions = tuple(batch.positions[place] for place in places)
    draws = draw(spec, training.levels, batch.step, positions, latent_shape(spec, batch.shape))
    x0_BCTHW, text_BLD = training.source.collate([batch.items[place] for place in places], draws.dropped)
    noise_BCTHW = draws.noise_BCTHW.to(device)
    noised_BCTHW = flow.add_noise(x0_BCTHW, noise_BCTHW, draws.sigma_B)
    timestep_B = flow.timestep_of(draws.sigma_B, spec.diffusion).to(device)
    # The timestep stays float32: in bfloat16 999 would be 1000.
    compute = torch_dtype(spec.precision.compute)
    velocity_BCTHW = training.network(noised_BCTHW.to(compute), timestep_B, text_BLD.to(compute))
    error_BCTHW = velocity_BCTHW.float() - flow.velocity_target(x0_BCTHW, noise_BCTHW)
    return error_BCTHW.square().flatten(1).mean(1) * draws.weight_B.to(device)


def _say_unseen(training: Training, quarantine: Quarantine) -> None:
    """Says which clips no step trained on."""
    for line in training.plan.counts.left_out_lines():
        say(line)
    if told := quarantine.told():
        say(told)


def _require_finite(loss: float, norm: float, training: Training, batch: Batch) -> None:
    """Stops the run before an update that would destroy the weights; all ranks see the same numbers.

    Raises:
        UserError: The loss or the norm is not finite; names the step and the samples.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    indices = [index for part in training.ranks.gather(list(batch.indices)) for index in part]
    raise UserError(
        f"step {batch.step + 1}: the loss is {loss}, the norm of the gradients {norm}; nothing was updated. "
        f"Samples: {', '.join(map(str, indices))} of {training.dataset.root}. "
        f"{states.last_good(training.run.checkpoints_dir)}; a lower spec.optim.lr may help"
    )
