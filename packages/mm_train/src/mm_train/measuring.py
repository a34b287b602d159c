"""Looks at a network between two steps, and leaves it to the bit as it was."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext

import torch

from mm_train.sharding import reshard
from mm_train.work import Training


@contextmanager
def at_rest(training: Training) -> Generator[None]:
    """Has the network compute as when it is used, in a block: its average where there is one, no gradients.

    Nothing is drawn there from shared streams of random numbers: all of them are keyed.
    """
    network, average = training.network, training.average
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with nullcontext() if average is None else average.in_place_of(network), torch.no_grad():
            yield
    finally:
        reshard(network)
        for module, mode in modes:
            module.training = mode
