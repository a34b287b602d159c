"""The end of a training: its result, and where its time went."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mm_config.console import say, typed_path
from mm_config.schema import exact_hash, spec_hash
from mm_data import Quarantine
from mm_models import peak_gib
from mm_train import states
from mm_train.adapters import write_adapter
from mm_train.metrics import final_loss
from mm_train.rates import Amount, Rates
from mm_train.results import TrainResult, result_of
from mm_train.states import TrainState
from mm_train.timing import STEP_PARTS
from mm_train.work import Training

_SHOWN = 0.005
"""Share of the time from which a part is told."""


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

    result = result_of(run, training.ranks.on_first(write))
    training.ledger.close()
    for line in summary(training):
        say(line)
    return result


def summary(training: Training) -> Iterator[str]:
    """Where the time of this process's steps went, what they came to, and where to read on."""
    totals = training.totals
    totals.spend(training.clock.lap().seconds())
    if not totals.steps:
        return
    whole = sum(totals.seconds.values())
    shares = {part: spent / whole for part, spent in totals.seconds.items() if part != "other"}
    parts = ", ".join(f"{part} {share:.0%}" for part, share in shares.items() if share >= _SHOWN)
    yield f"{totals.steps} steps in {whole:.1f} s: {parts}"
    rates = Rates(training)
    counted = Amount(totals.samples, totals.tokens, totals.model_flops, totals.executed_flops)
    found = rates.of(counted, sum(totals.seconds.get(part, 0.0) for part in STEP_PARTS))
    told = [f"{found['samples_per_second']:.3g} samples/s", f"{found['tokens_per_second']:,.0f} tokens/s"]
    told += [f"{found['tflops']:.3g} TFLOP/s"]
    told += [f"{name.upper()} {found[name]:.1%}" for name in ("mfu", "hfu") if name in found]
    peak = f"peak memory {peak_gib(training.device):.2f} GiB"
    yield f"{', '.join(told)}; {peak}; {typed_path(training.run.metrics_path)}"
    if saved := training.saving.told():
        yield saved
    if account := training.ledger.account():
        yield f"the run took {account}"
