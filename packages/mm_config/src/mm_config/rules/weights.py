"""Rules on where weights come from: the training that made them, and what a run takes over from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mm_config.rules.modules import linear_problems
from mm_config.schema.diff import Change, diff, for_person
from mm_config.schema.errors import Problem
from mm_config.schema.evolve import get
from mm_config.schema.fields import SEMANTIC
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Weights
from mm_config.specs.optim import AdamWSpec
from mm_config.specs.train import StartMode, TrainSpec
from mm_config.specs.weights import RandomWeights, SavedWeights, TrainedBy

EXACT_FIELDS = (
    "expert",
    "diffusion",
    "autoencoder",
    "text_encoder",
    "image_encoder",
    "data",
    "optim",
    "schedule.warmup_steps",
    "schedule.warmup_ratio",
    "frozen",
    "lora",
    "ema",
    "precision",
    "seed",
)
"""What decides the steps that were made; the decay after them may be chosen anew."""
_GENERATION_FIELDS = ("model", "autoencoder", "text_encoder", "image_encoder", "boundary")
"""What generation shares with the training of its weights."""
_INSIDE = {"boundary": "diffusion.boundary"}
"""Where a training has what an inference spec says at another place."""


def start_problems(spec: TrainSpec, path: str) -> Iterator[Problem]:
    """Weights that a training starts from, for its network and for its adapters, and what goes on with them.

    Args:
        spec: The training spec.
        path: Where it stands, for messages that name a second field.
    """
    yield from _trained_problems(spec.start_from, "start_from", spec, ["model"], path)
    yield from _average_problems(spec.start_from, "start_from")
    if spec.start_mode is StartMode.WEIGHTS:
        yield from _network_problems(spec.start_from, "start_from")
    else:
        yield from _continuing_problems(spec, path)
    if (lora := spec.lora) is not None:
        yield from linear_problems(lora.targets, spec.model, "lora.targets")
        form = ["lora.rank", "lora.alpha", "lora.targets"]
        yield from _adapter_problems(lora.start_from, "lora.start_from", spec, ["model"], form, path)


def used_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    """Networks and adapters that generation uses: for the experts that there are, trained as those.

    Args:
        spec: The inference spec.
        path: Where it stands, for messages that name a second field.
    """
    if spec.boundary is None and spec.low_noise is not None:
        yield Problem("low_noise", f"must be None for a single network ({path}.boundary is None)")
    if spec.boundary is not None and spec.low_noise is None:
        yield Problem("low_noise", f"is missing, but {path}.boundary {spec.boundary} needs two experts")
    high = Expert.SINGLE if spec.boundary is None else Expert.HIGH_NOISE
    experts = {"high_noise": high, "low_noise": Expert.LOW_NOISE}
    for name, expert in experts.items():
        weights = getattr(spec, name)
        yield from _trained_problems(weights, name, spec, _GENERATION_FIELDS, path)
        yield from _average_problems(weights, name)
        yield from _trained_expert_problems(weights, name, expert)
        yield from _network_problems(weights, name)
    for index, lora in enumerate(spec.loras):
        if lora.low_noise is not None and spec.boundary is None:
            yield Problem(
                f"loras.{index}.low_noise",
                f"must be None for a single network ({path}.boundary is None); its adapter is high_noise",
            )
        for name, expert in experts.items():
            where, weights = f"loras.{index}.{name}", getattr(lora, name)
            yield from _adapter_problems(weights, where, spec, _GENERATION_FIELDS, [], path)
            yield from _trained_expert_problems(weights, where, expert)


def _trained_problems(
    weights: Weights | None, name: str, spec: TrainSpec | InferSpec, fields: Iterable[str], path: str
) -> Iterator[Problem]:
    """Weights that come from a training must come from one of the same network and encoders.

    Args:
        weights: The value of the field `name`.
        name: The field that holds the weights.
        spec: The spec that uses the weights.
        fields: What the training must hold as the spec does, by path inside the spec.
        path: Where the spec stands.
    """
    if not isinstance(weights, TrainedBy):
        return
    training = weights.spec
    if not isinstance(training, TrainSpec):
        yield Problem(f"{name}.spec", f"must be a training spec, got {type(training).__name__}")
        return
    for outside in fields:
        inside = _INSIDE.get(outside, outside)
        for change in _outermost(diff(get(spec, outside), get(training, inside))):
            if change.role is SEMANTIC:
                below = change.path.removeprefix("spec")
                yield Problem(
                    f"{name}.spec.{inside}{below}",
                    f"was trained with {for_person(change.new)}, but {path}.{outside}{below} is "
                    f"{for_person(change.old)}",
                )


def _outermost(changes: Iterable[Change]) -> Iterator[Change]:
    """Where the class of a spec differs, its fields are not compared."""
    above: str | None = None
    for change in changes:
        if above is None or not change.path.startswith(f"{above}."):
            yield change
            above = change.path


def _trained_expert_problems(weights: Weights | None, name: str, wanted: Expert) -> Iterator[Problem]:
    """Weights of an expert must come from the training of that expert."""
    training = _training_of(weights)
    if training is not None and training.expert is not wanted:
        yield Problem(f"{name}.spec.expert", f"must be {wanted.value}, got {training.expert.value}")


def _average_problems(weights: Weights | None, name: str) -> Iterator[Problem]:
    """An average is asked of a training that keeps one."""
    training = _training_of(weights)
    if isinstance(weights, TrainedBy) and weights.average and training is not None and training.ema is None:
        yield Problem(
            f"{name}.average", "is true, but that training keeps none (its ema is None); leave it out"
        )


def _network_problems(weights: Weights | None, name: str) -> Iterator[Problem]:
    """A network's weights are not the outcome of a training of adapters."""
    training = _training_of(weights)
    if training is not None and training.lora is not None:
        yield Problem(
            f"{name}.spec.lora",
            "made adapters, not a network: give here what it started from, and its adapters as lora",
        )


def _adapter_problems(
    weights: Weights | None,
    name: str,
    spec: TrainSpec | InferSpec,
    fields: Iterable[str],
    form: Iterable[str],
    path: str,
) -> Iterator[Problem]:
    """As `_trained_problems`, for adapters, whose training must have had the form that the spec has."""
    if isinstance(weights, RandomWeights):
        yield Problem(name, "can't be random weights: None starts adapters anew")
    training = _training_of(weights)
    if training is not None and training.lora is None:
        yield Problem(f"{name}.spec.lora", "is None: that training made a network, not adapters")
        form = ()
    yield from _average_problems(weights, name)
    yield from _trained_problems(weights, name, spec, (*fields, *form), path)


def _continuing_problems(spec: TrainSpec, path: str) -> Iterator[Problem]:
    """An optimizer's state comes from a training alone, and has to fit."""
    mode, before = spec.start_mode, _training_of(spec.start_from)
    if not isinstance(spec.start_from, TrainedBy | SavedWeights):
        yield Problem(
            "start_mode",
            f"is {mode.value}, which goes on with a training's optimizer, but {path}.start_from is "
            f"{for_person(spec.start_from)}, which has none; choose weights, or start from TrainedBy(...)",
        )
    elif spec.start_from.average:
        yield Problem(
            "start_from.average",
            f"is true, but start_mode {mode.value} goes on with the optimizer's state of the last weights; "
            "leave it out, or choose weights",
        )
    if before is not None:
        yield from continuing_problems(spec, before, before.schedule.steps, path)


def continuing_problems(spec: TrainSpec, before: TrainSpec, steps: int, path: str) -> Iterator[Problem]:
    """What keeps a training from going on with the state of another one.

    Args:
        spec: The training spec, whose mode is not weights.
        before: The training whose state it goes on with.
        steps: Steps that were made of it.
        path: Where the spec stands.
    """
    mode, weights = spec.start_mode, TrainedBy(spec=before)
    fields = EXACT_FIELDS
    if mode is not StartMode.EXACT:
        fields = ("lora.rank", "lora.targets") if spec.lora and before.lora else ("lora", "frozen")
        if type(spec.optim) is not type(before.optim):
            yield Problem(
                "start_from.spec.optim",
                f"is {for_person(before.optim)}, whose state {for_person(spec.optim)} in {path}.optim can't "
                "take over; choose start_mode weights",
            )
        elif isinstance(spec.optim, AdamWSpec):
            fields += ("optim.state_bits",)
    needed = f"{path}.start_mode {mode.value} needs them equal"
    for problem in _trained_problems(weights, "start_from", spec, fields, path):
        yield Problem(problem.path, f"{problem.message}; {needed}")
    if mode is StartMode.EXACT:
        kept, keeps = (0.0 if one.validation is None else one.validation.holdout for one in (before, spec))
        if kept != keeps:
            yield Problem(
                "validation",
                f"keeps {keeps} of the clips out of training, but the training before kept {kept}; {needed}",
            )
        if spec.schedule.steps <= steps:
            yield Problem(
                "schedule.steps",
                f"is {spec.schedule.steps}, but the training that goes on has made {steps}; "
                f"at least {steps + 1}",
            )


def _training_of(weights: Weights | None) -> TrainSpec | None:
    training = weights.spec if isinstance(weights, TrainedBy) else None
    return training if isinstance(training, TrainSpec) else None
