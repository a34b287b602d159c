"""The state before the first step: weights alone, or what another training of ours ended with."""

from __future__ import annotations

from pathlib import Path

import attrs
from torch import nn

import mm_data
import mm_models
from mm_config import rules
from mm_config.console import say
from mm_config.schema import Problem, UserError, concerning, prefixed
from mm_config.specs import RandomWeights, SavedWeights, StartMode, TrainedBy, TrainSpec
from mm_config.stored import from_payload
from mm_models import checkpoint
from mm_models.lora import Adapter
from mm_train import states
from mm_train.adapters import ADAPTER_START, START, begin_adapters
from mm_train.states import TrainState
from mm_train.work import Training


@attrs.frozen(eq=False)
class Start:
    """What a training begins with that no checkpoint of its own holds."""

    found: Path | RandomWeights | None
    """Where what the spec starts from is: weights, or the checkpoint of a training that goes on; None where
    the run itself goes on and needs it no more."""
    base: Path | RandomWeights | None
    """Where the network is beside which adapters are trained; None where the network itself is."""
    base_digest: str | None
    """As `adapters.base_digest` gives it."""
    adapter: tuple[Path, Adapter] | None
    """Adapters that are trained further; None where they start anew, or are in a checkpoint."""

    @property
    def places(self) -> dict[str, Path | RandomWeights]:
        """Where it is, by canonical path."""
        places = {START: self.found, ADAPTER_START: self.adapter and self.adapter[0]}
        return {path: place for path, place in places.items() if place is not None}


def require_state(spec: TrainSpec, found: Path) -> None:
    """Holds a checkpoint whose state a training goes on with against its spec; a spec that names the training
    has been checked as a whole.

    Raises:
        UserError: It is of a training that can't go on as the spec says, or of none.
    """
    if spec.start_mode is StartMode.WEIGHTS:
        return
    with concerning("spec.start_from"):
        if damage := states.damage_of(found):
            raise UserError(Problem(str(found), damage))
        content = checkpoint.read_state(found)
        before = from_payload(content["spec"])
    if not isinstance(spec.start_from, SavedWeights):
        return
    if not isinstance(before, TrainSpec):
        raise UserError(Problem("spec.start_from", f"{found} is of no training"))
    if problems := list(prefixed(rules.continuing_problems(spec, before, content["step"], "spec"), "spec")):
        raise UserError(problems)


def begin(training: Training, start: Start) -> TrainState:
    """Gives what is trained its first values and, where the spec goes on with a training, the optimizer its
    moments.

    Args:
        training: Whose network has no values yet, but for one beside which adapters are trained.
        start: What it begins with.

    Returns:
        The state before the first step. Where everything goes on, that is the step after the last one of the
        training before.

    Raises:
        UserError: Weights don't fit, or the stream can't go on with this data.
    """
    spec, ranks, found, base = training.spec, training.ranks, start.found, start.base_digest
    assert found is not None, "what a training starts from is looked up before"
    if spec.start_mode is StartMode.WEIGHTS or isinstance(found, RandomWeights):
        if spec.lora is None:
            ranks.together(lambda: fill(training.network, found))
        else:
            begin_adapters(training.network, spec, start.adapter)
        _begin_average(training)
        return TrainState(0, {}, 0.0, base=base)
    with concerning("spec.start_from"):
        more = training.more_groups() if spec.start_mode is StartMode.EXACT else {}
        before = ranks.together(lambda: states.restore(found, training.network, training.optimizer, more))
    updates = before.updates_before + before.step
    if spec.start_mode is StartMode.RESTART:
        _begin_average(training)
        say(f"goes on with the weights and moments of {found}, after {updates} updates")
        return TrainState(0, {}, 0.0, updates_before=updates, base=base)
    ranks.together(
        lambda: mm_data.resume_step(
            before.data, spec.data, training.dataset, seed=spec.seed, plan=training.plan
        )
    )
    say(f"goes on after step {before.step} of {found}")
    return TrainState(before.step, before.data, 0.0, updates_before=before.updates_before, base=base)


def steps_before(spec: TrainSpec) -> int | None:
    """Steps that another training made and logged before this one went on with it; None where the spec names
    a checkpoint of it, which may be of any step.
    """
    if spec.start_mode is not StartMode.EXACT:
        return 0
    parent = spec.start_from.spec if isinstance(spec.start_from, TrainedBy) else None
    return parent.schedule.steps if isinstance(parent, TrainSpec) else None


def _begin_average(training: Training) -> None:
    """Has the average be the first weights."""
    if training.average is not None:
        training.average.update(training.network, 0)


def fill(network: nn.Module, weights: Path | RandomWeights) -> None:
    """Draws a network's weights, or loads them."""
    if isinstance(weights, RandomWeights):
        mm_models.initialize(network, weights.seed)
    else:
        with concerning("spec.start_from"):
            mm_models.load(network, weights)
