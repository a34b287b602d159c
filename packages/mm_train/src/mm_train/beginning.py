"""The state before the first step: weights alone, or what another training of ours ended with."""

from __future__ import annotations

from pathlib import Path

import mm_data
import mm_models
from mm_config import rules
from mm_config.console import say
from mm_config.schema import Problem, UserError, concerning, prefixed
from mm_config.specs import RandomWeights, SavedWeights, StartMode, TrainSpec
from mm_config.stored import from_payload
from mm_models import checkpoint
from mm_train import states
from mm_train.states import TrainState
from mm_train.work import Training


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


def begin(training: Training, found: Path | RandomWeights) -> TrainState:
    """Gives the network its first weights and, where the spec goes on with a training, the optimizer its
    moments.

    Args:
        training: Whose network has no values yet.
        found: The weights, or the checkpoint of the training that goes on.

    Returns:
        The state before the first step. Where everything goes on, that is the step after the last one of the
        training before.

    Raises:
        UserError: Weights don't fit, or the stream can't go on with this data.
    """
    spec, ranks = training.spec, training.ranks
    if spec.start_mode is StartMode.WEIGHTS or isinstance(found, RandomWeights):
        ranks.together(lambda: fill(training, found))
        _begin_average(training)
        return TrainState(0, {}, 0.0)
    with concerning("spec.start_from"):
        more = training.more_groups() if spec.start_mode is StartMode.EXACT else {}
        before = ranks.together(lambda: states.restore(found, training.network, training.optimizer, more))
    updates = before.updates_before + before.step
    if spec.start_mode is StartMode.RESTART:
        _begin_average(training)
        say(f"goes on with the weights and moments of {found}, after {updates} updates")
        return TrainState(0, {}, 0.0, updates_before=updates)
    ranks.together(
        lambda: mm_data.resume_step(
            before.data, spec.data, training.dataset, seed=spec.seed, plan=training.plan
        )
    )
    say(f"goes on after step {before.step} of {found}")
    return TrainState(before.step, before.data, 0.0, updates_before=before.updates_before)


def _begin_average(training: Training) -> None:
    """Has the average be the first weights."""
    if training.average is not None:
        training.average.update(training.network, 0)


def fill(training: Training, weights: Path | RandomWeights) -> None:
    """Draws a network's weights, or loads them."""
    if isinstance(weights, RandomWeights):
        mm_models.initialize(training.network, weights.seed)
    else:
        with concerning("spec.start_from"):
            mm_models.load(training.network, weights)
