"""Looks at a network between two steps, and leaves it to the bit as it was."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from mm_train.sharding import reshard
from mm_train.work import Training


@contextmanager
def at_rest(training: Training) -> Generator[None]:
    """Has the network compute without gradients and as it does when it is used, in a block; encoders are awake.

    Nothing is drawn from shared streams of random numbers there: all of them are keyed. FSDP2 leaves what it
    gathered for a forward pass gathered until the backward pass, which doesn't come; so it is given back.
    """
    modes = [(module, module.training) for module in training.network.modules()]
    training.network.eval()
    try:
        with torch.no_grad(), training.encoders.awake():
            yield
    finally:
        reshard(training.network)
        for module, mode in modes:
            module.training = mode
