"""A training run from its spec to its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path

import attrs
import torch

import mm_data
from mm_config import rules
from mm_config.console import say
from mm_config.content import Input
from mm_config.npu import check_environment
from mm_config.options import RunOptions, StoppedEarly
from mm_config.running import equal_run, on_threads
from mm_config.runs import Run, attach, open_run, read_result, recorded
from mm_config.schema import UserError, expect, expect_function
from mm_config.specs import TrainSpec
from mm_models import deterministic, device, device_names, stop_requests, torch_dtype
from mm_models.ops import Ops, choose, described
from mm_models.parallel import over_ranks
from mm_models.ranks import Ranks, agree_on, joined, require_shared
from mm_train.adapters import build_network
from mm_train.average import average_of
from mm_train.beginning import begin, fill, steps_before
from mm_train.carried_out import check_carried_out
from mm_train.clipping import clipping_of
from mm_train.content import agree_on_data, agreed_inputs
from mm_train.finishing import finish, quarantine_of
from mm_train.layout import layout_of, needs_group, timeout_of
from mm_train.ledger import Ledger, begun
from mm_train.loop import fit
from mm_train.metrics import Step
from mm_train.noise import noise_levels
from mm_train.optim import build_optimizer
from mm_train.parallelize import materialize, parallelize, shard_device
from mm_train.preparing import opened_source, planned, prepared
from mm_train.profiling import require_recordable
from mm_train.results import TrainResult, result_of
from mm_train.resuming import restore, resume_point
from mm_train.room import require_room
from mm_train.sample_requests import encoded_samples, open_samples
from mm_train.saving import Saving
from mm_train.starting import find_start, in_stored_order, require_short_captions
from mm_train.trackers import require_trackers, tracking
from mm_train.work import Training


def train(
    spec: TrainSpec, options: RunOptions | None = None, on_step: Callable[[Step], object] | None = None
) -> TrainResult:
    """Trains a network; under torchrun every rank calls it.

    With `options.resume` the run goes on in its folder from its newest intact checkpoint; damaged ones are
    named and kept. What can be known before the first step fails before the run folder is made.

    Args:
        spec: What is trained.
        options: How it is carried out here: the runs folder, what is resumed; where weights and data lie is
            read from `locations.yaml` by default, as on the command line. With `if_needed` the result of a
            finished run of an equal spec and equal content is returned, without a step.
        on_step: Called after each step on every rank. Where it raises an error, the state is saved first, and
            the run can be resumed.

    Raises:
        TypeError: An argument is of another type.
        UserError: The spec, the data, the weights or the resumed run don't allow it, or a step failed;
            on every rank, with the problems of all.
        StoppedEarly: `options.stop_after` came before the end; the state is saved and the run can be resumed.
        KeyboardInterrupt: The process was asked to stop; the state is saved and the run can be resumed.
    """
    expect_function("on_step", on_step)
    with closing(steps(spec, options)) as running:
        while True:
            try:
                step = next(running)
            except StopIteration as ended:
                return ended.value
            if on_step is not None:
                on_step(step)


def steps(spec: TrainSpec, options: RunOptions | None = None) -> Generator[Step, None, TrainResult]:
    """Trains a network a step at a time: `train` as an iterator, whose value is the result.

        for step in mm_train.steps(SPEC):
            if step.loss < 0.5:
                break

    Nothing happens before the first step is asked for. While the caller has a step, signals to stop are
    noted; the next call follows them. Closing the iterator, as leaving the loop does, saves the state, and
    the run can be resumed; after the last step it ends the run. Where one rank closes it, the others stop
    after the same step, with KeyboardInterrupt.

    Raises:
        TypeError: An argument is of another type.
        UserError, StoppedEarly, KeyboardInterrupt: As `train`, when a step is asked for.
    """
    options = RunOptions() if options is None else options
    expect("spec", spec, TrainSpec)
    expect("options", options, RunOptions)
    if problems := list(options.unheard({"requests": "a training makes no videos"})):
        raise UserError(problems)
    return _steps(spec, options)


def _steps(spec: TrainSpec, options: RunOptions) -> Generator[Step, None, TrainResult]:
    began = begun(bool(options.argv))
    check_environment(spec)
    if options.if_needed and (earlier := equal_run(spec, options)):
        finished = attach(earlier)
        return result_of(finished, read_result(finished.path))
    picked = device.pick(spec.runtime.device)
    closed = False
    with (
        on_threads(options.threads),
        deterministic(picked, spec.runtime.deterministic),
        joined(picked, timeout_of(spec), sharded=needs_group(spec)) as ranks,
    ):
        running = _train(spec, options, picked, ranks, began)
        try:
            step = next(running)
            while True:
                try:
                    yield step
                except GeneratorExit:
                    closed = True
                step = running.send(closed)
        except StopIteration as ended:
            return ended.value
        except StoppedEarly:
            if closed:
                raise GeneratorExit from None
            raise


def _train(
    spec: TrainSpec, options: RunOptions, picked: torch.device, ranks: Ranks, began: float
) -> Generator[Step, bool, TrainResult]:
    """Everything that the ranks do together; what it holds is free when they part."""
    rules.check(spec, ranks.world_size)
    rules.check_kernels(spec, picked.type)
    check_carried_out(spec)
    agree_on(spec, ranks)
    require_shared(options, ranks)
    require_recordable(spec, picked)
    ranks.on_first(lambda: require_trackers(spec))
    point = resume_point(spec, options, ranks)
    options = attrs.evolve(options, resume=point and point.run_dir)
    device.allow_tf32(picked, spec.precision.allow_tf32)
    layout = layout_of(spec, ranks, picked)
    ops = choose(picked, spec.runtime.attention, torch_dtype(spec.precision.compute))
    ops = over_ranks(ops, layout.context)
    network, attached = build_network(spec, ops)
    ranks.on_first(lambda: require_room(spec, options, network))
    dataset, data = prepared(spec, options, ranks)
    agree_on_data(dataset, ranks)
    plan = planned(spec, dataset, options, ranks)
    parallelize(network, spec, layout, picked)
    ranks.on_first(lambda: require_short_captions(spec, options, dataset))
    samples = ranks.together(lambda: open_samples(spec, options))
    saved = None if point is None or point.saved is None else Path(point.saved)
    first = find_start(spec, options, dataset, network, saved, ranks)
    made = agreed_inputs(spec, options, dataset, data, first.places, ranks)
    if spec.data.precomputed is None or not spec.data.precomputed.latents:
        ranks.on_first(lambda: mm_data.check_files(spec.data, dataset))
    run = _open(spec, options, ops, picked, ranks, made.inputs)
    ledger = Ledger(run.path if ranks.is_first else None, began)
    with (
        recorded(run) if ranks.is_first else nullcontext(),
        ranks.naming_who_is_missing(run),
        closing(ledger),
    ):
        started = time.perf_counter()
        sampling = ranks.together(lambda: encoded_samples(samples))
        source = opened_source(spec, options, dataset, plan, picked, ranks, made.inputs)
        shards = shard_device(spec, picked)
        materialize(network, picked, shards)
        if saved is not None and made.keeps_order:
            dataset = in_stored_order(dataset, saved)
            plan = planned(spec, dataset, options, ranks)
        for line in plan.counts.lines():
            say(line)
        training = Training(
            spec=spec,
            run=run,
            ranks=ranks,
            layout=layout,
            device=picked,
            dataset=dataset,
            plan=plan,
            source=source,
            levels=noise_levels(spec),
            network=network,
            optimizer=build_optimizer(network, spec.optim, shards),
            sampling=sampling,
            dropout=attached and attached.dropout,
            clipping=clipping_of(spec.optim, shards),
            average=average_of(network, spec.ema),
            ledger=ledger,
            saving=Saving(run.checkpoints_dir, spec, ranks),
            sinks=[run.log] if ranks.is_first else [],
        )
        ranks.on_first(lambda: quarantine_of(training).add(source.bad))
        if (beside := first.base) is not None:
            ranks.together(lambda: fill(network, beside))
        if point is None or saved is None:
            if point is not None:
                say(f"{point.run_dir} has no checkpoint yet; it begins anew")
            start = begin(training, first)
        else:
            start = attrs.evolve(restore(training, point), base=first.base_digest)
        for lost in ranks.on_first(lambda: run.rewind_metrics(start.step, steps_before(spec))):
            say(lost)
        start = attrs.evolve(start, seconds=start.seconds + time.perf_counter() - started)
        ranks.on_first(lambda: ledger.ready(start.step, ranks.world_size))
        with stop_requests() as stop_requested, tracking(training, start.step):
            state = yield from fit(training, start, stop_requested, options.stop_after)
            return finish(training, state)


def _open(
    spec: TrainSpec,
    options: RunOptions,
    ops: Ops,
    picked: torch.device,
    ranks: Ranks,
    inputs: Mapping[str, Input],
) -> Run:
    """Rank 0 opens the run folder; the others read it."""

    def open_here() -> Run:
        say(f"{picked} with {described(ops)}")
        return open_run(spec, options, device_names(picked), ops.names(), inputs)

    run = ranks.together(lambda: open_here() if ranks.is_first else None)
    path = ranks.share(run and str(run.path.absolute()))
    return run or attach(Path(path))
