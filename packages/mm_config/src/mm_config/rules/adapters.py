"""Rules on low-rank adapters: what they are put on, and which training they come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mm_config.rules.experts import trained_expert_problems, trained_problems
from mm_config.rules.modules import linear_problems
from mm_config.schema.errors import Problem
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Weights
from mm_config.specs.train import StartMode, TrainSpec
from mm_config.specs.weights import RandomWeights, TrainedBy


def lora_problems(spec: TrainSpec, path: str) -> Iterator[Problem]:
    """Adapters are put on linear layers, and go on from adapters of the same form.

    Args:
        spec: The training spec.
        path: Where it stands, for messages that name a second field.
    """
    if spec.start_mode is StartMode.WEIGHTS:
        yield from network_problems(spec.start_from, "start_from")
    lora = spec.lora
    if lora is None:
        return
    yield from linear_problems(lora.targets, spec.model, "lora.targets")
    if lora.start_from is not None:
        form = {"rank": lora.rank, "alpha": lora.alpha, "targets": lora.targets}
        same = {f"lora.{name}": (f"lora.{name}", value) for name, value in form.items()}
        shared = {"model": ("model", spec.model)}
        yield from _adapter_problems(lora.start_from, "lora.start_from", shared, same, path)


def applied_problems(spec: InferSpec, path: str, shared: dict[str, Any]) -> Iterator[Problem]:
    """Adapters that generation adds: to experts that there are, trained for them.

    Args:
        spec: The inference spec.
        path: Where it stands, for messages that name a second field.
        shared: What the training of weights must hold, see `trained_problems`.
    """
    for index, lora in enumerate(spec.loras):
        if lora.low_noise is not None and spec.boundary is None:
            yield Problem(
                f"loras.{index}.low_noise",
                f"must be None for a single network ({path}.boundary is None); its adapter is high_noise",
            )
        high = Expert.SINGLE if spec.boundary is None else Expert.HIGH_NOISE
        for name, weights, expert in (
            ("high_noise", lora.high_noise, high),
            ("low_noise", lora.low_noise, Expert.LOW_NOISE),
        ):
            where = f"loras.{index}.{name}"
            yield from _adapter_problems(weights, where, shared, {}, path)
            yield from trained_expert_problems(weights, where, expert)


def network_problems(weights: Weights | None, name: str) -> Iterator[Problem]:
    """A network's weights are not the outcome of a training of adapters."""
    training = weights.spec if isinstance(weights, TrainedBy) else None
    if isinstance(training, TrainSpec) and training.lora is not None:
        yield Problem(
            f"{name}.spec.lora",
            "made adapters, not a network: give here what it started from, and its adapters as lora",
        )


def _adapter_problems(
    weights: Weights | None, name: str, shared: dict[str, Any], same: dict[str, Any], path: str
) -> Iterator[Problem]:
    if isinstance(weights, RandomWeights):
        yield Problem(name, "can't be random weights: None starts adapters anew")
    training = weights.spec if isinstance(weights, TrainedBy) else None
    if isinstance(training, TrainSpec) and training.lora is None:
        yield Problem(f"{name}.spec.lora", "is None: that training made a network, not adapters")
        same = {}
    yield from trained_problems(weights, name, {**shared, **same}, path)
