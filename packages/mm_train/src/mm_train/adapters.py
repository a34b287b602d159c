"""What of a network is trained: all, all but what is frozen, or adapters beside it.

Of a training of adapters the network is as its weights are: it is loaded whenever the training starts or goes
on, and no checkpoint holds it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

import mm_models
from mm_config.console import say
from mm_config.durable import discard
from mm_config.options import RunOptions
from mm_config.rules import matching
from mm_config.running import resolve_weights
from mm_config.schema import Problem, UserError, concerning
from mm_config.specs import RandomWeights, StartMode, TrainedBy, TrainSpec
from mm_config.stored import from_payload
from mm_models import Use, check_said, check_weights, checkpoint, files_digest, torch_dtype
from mm_models.lora import (
    HIGH_NOISE,
    Adapter,
    Attached,
    attach_trainable,
    fill_adapters,
    initialize_adapters,
    read_adapters,
    require_same,
    save_adapters,
    trained_adapter,
)
from mm_models.ops import Ops

if TYPE_CHECKING:
    from mm_train.work import Training

START = "spec.start_from"
ADAPTER_START = "spec.lora.start_from"
FOLDER = "adapter"
"""In the run folder: what a training of adapters made, as diffusers writes it."""


def build_network(spec: TrainSpec, ops: Ops) -> tuple[nn.Module, Attached | None]:
    """The network on meta, with its trainable parameters decided, and what stands beside it.

    What is trained is float32. The network beside which adapters are trained has no update that would need
    that: it is in the format that is computed in.

    Raises:
        UserError: A target of adapters matches no linear layer.
    """
    network = mm_models.build(
        spec.model,
        dtype=torch.float32 if spec.lora is None else torch_dtype(spec.precision.compute),
        ops=ops,
        float32_residual=spec.precision.float32_residual,
    )
    if spec.lora is not None:
        return network, attach_trainable(network, spec.lora, torch.float32)
    names = [name for name, _ in network.named_parameters()]
    for pattern in spec.frozen:
        for name in matching(names, pattern, parameters=True):
            network.get_parameter(name).requires_grad_(False)
    return network, None


def find_base(
    spec: TrainSpec, options: RunOptions, network: nn.Module, found: Path | RandomWeights | None
) -> Path | RandomWeights | None:
    """Where the network is beside which adapters are trained; None where the network itself is.

    A training that goes on with another one's adapters is beside the network that that was beside.

    Args:
        spec: The training.
        options: Where runs and locations are looked up.
        network: With adapters beside it, on meta.
        found: What the spec starts from, where that was looked up.

    Raises:
        UserError: It is nowhere, or doesn't fit.
    """
    if spec.lora is None:
        return None
    if found is not None and spec.start_mode is StartMode.WEIGHTS:
        return found
    first = spec
    while first.start_mode is not StartMode.WEIGHTS:
        first = _before(first, options)
    base = resolve_weights(first.start_from, options, spec.runtime.build_missing, START)
    if isinstance(base, Path):
        with concerning(START):
            check_weights(network, base)
    return base


def _before(spec: TrainSpec, options: RunOptions) -> TrainSpec:
    """The training that one goes on with."""
    if isinstance(spec.start_from, TrainedBy):
        before = spec.start_from.spec
    else:
        found = resolve_weights(spec.start_from, options, False, START)
        assert isinstance(found, Path), "rules.check refuses to go on with random weights"
        before = from_payload(checkpoint.read_state(found)["spec"])
    assert isinstance(before, TrainSpec), "rules.check asks for a training"
    return before


def base_digest(base: Path | RandomWeights | None, options: RunOptions, before: Path | None) -> str | None:
    """The digest of the files of the network beside which adapters are trained.

    Args:
        base: Where that is.
        options: Whether another network is accepted.
        before: The checkpoint that the training goes on from, which says what it was trained beside.

    Returns:
        None where the network itself is trained, and where its weights are drawn: those the spec says whole.

    Raises:
        UserError: The network is another than the checkpoint says, and that is not accepted.
    """
    if base is None:
        return None
    digest = files_digest(base) if isinstance(base, Path) else None
    if before is None or (was := checkpoint.read_state(before).get("base")) == digest:
        return digest
    message = f"is not what {before} was trained beside: its files are {digest}, they were {was}"
    if not options.accept_content:
        how = options.name_of("accept_content")
        raise UserError(Problem(START, f"{message}; bring those back, or go on beside these by {how}"))
    say(f"{START}: {message}")
    return digest


def start_adapter(spec: TrainSpec, options: RunOptions, network: nn.Module) -> tuple[Path, Adapter] | None:
    """Where the adapters are that a training goes on with, and what they are; None where they start anew.

    Args:
        spec: The training.
        options: Where runs and locations are looked up.
        network: With adapters beside it, on meta.

    Raises:
        UserError: They are nowhere, were made for another network or expert, or are scaled otherwise.
    """
    if spec.lora is None or spec.lora.start_from is None or spec.start_mode is not StartMode.WEIGHTS:
        return None
    found = resolve_weights(spec.lora.start_from, options, spec.runtime.build_missing, ADAPTER_START)
    assert isinstance(found, Path), "rules.check refuses random weights of an adapter"
    with concerning(ADAPTER_START):
        check_said(
            found, Use(spec.expert, spec.diffusion.boundary, "spec.diffusion.boundary", spec.start_from)
        )
        adapter = read_adapters(found).of(spec.expert)
        require_same(network, adapter, where=str(found))
        scale = spec.lora.alpha / spec.lora.rank
        for name, layer in adapter.layers.items():
            if not math.isclose(layer.scale, scale, rel_tol=1e-6):  # Some files hold alpha as float32.
                message = f"scales {name} by {layer.scale:g}; spec.lora.alpha / spec.lora.rank is {scale:g}"
                raise UserError(Problem(str(found), message))
    return found, adapter


def begin_adapters(network: nn.Module, spec: TrainSpec, started: tuple[Path, Adapter] | None) -> None:
    """Gives adapters their first values: drawn, with products of zero, or those of a file."""
    assert spec.lora is not None
    if started is None:
        initialize_adapters(network, spec.lora.init, spec.seed)
    else:
        fill_adapters(network, started[1], where=str(started[0]))


def write_adapter(training: Training) -> str | None:
    """Writes the trained adapters into the run folder as diffusers does; every rank calls it.

    Returns:
        The folder's name in the run folder; None where the network itself was trained.
    """
    if (lora := training.spec.lora) is None:
        return None
    adapter = trained_adapter(training.network, lora.alpha)

    def write() -> str:
        folder = training.run.path / FOLDER
        if folder.exists():  # Of a run that ended between this and its result.
            discard(folder)
        # diffusers has this name for either expert, in files of their own.
        save_adapters({HIGH_NOISE: adapter}, folder)
        return FOLDER

    return training.ranks.on_first(write)
