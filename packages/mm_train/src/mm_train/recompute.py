"""Activation checkpointing: the backward pass of a module computes its forward pass again."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from mm_config.specs import Recompute, RecomputeSpec
from mm_train.matching import matching_modules


def recompute(network: nn.Module, spec: RecomputeSpec) -> None:
    """Makes each matched module keep its inputs alone.

    The method `forward` is replaced and not the module, because a wrapper would change parameters' names.

    Raises:
        UserError: A pattern matches a list of modules.
    """
    if spec.mode is Recompute.NONE:
        return
    for name in matching_modules(network, spec.modules, "spec.recompute.modules"):
        module = network.get_submodule(name)
        module.forward = partial(checkpoint, module.forward, use_reentrant=False)
