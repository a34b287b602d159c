"""One forward pass of the denoising loop: which it is, and who makes it.

What speeds generation up or makes it fit a device wraps the function that makes passes: it knows of each pass
the step, the expert and the branch of guidance, and the loop knows nothing of it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

import attrs
from torch import Tensor

from mm_config.specs import Expert
from mm_models import SparseAttention

Network = Callable[..., Tensor]
"""`(latents_BCTHW, timestep_B, text_BLD) -> velocity_BCTHW`; the timesteps are `[B, S]` where a frame is
clean, and image features are a fourth argument where the network has an image branch."""


class Branch(enum.Enum):
    """The texts that a pass is given, of the two of classifier-free guidance."""

    PROMPT = "prompt"
    """The prompts."""
    NEGATIVE = "negative"
    """The negative prompts."""
    BOTH = "both"
    """The prompts, then the negative prompts, in one batch of twice the size."""


@attrs.frozen
class Pass:
    """One forward pass of the denoising loop."""

    step: int
    """The denoising step, from 0."""
    expert: Expert
    """The network that works."""
    branch: Branch
    """The texts that it is given."""


Forward = Callable[..., Tensor]
"""`(which, *inputs) -> velocity_BCTHW`: makes the pass `which` of a network's inputs."""


def by_networks(networks: Mapping[Expert, Network]) -> Forward:
    """Passes that the experts make as they stand."""

    def forward(which: Pass, *inputs: Tensor) -> Tensor:
        return networks[which.expert](*inputs)

    return forward


def told_to(sparse: SparseAttention, forward: Forward) -> Forward:
    """The same passes, of which the networks' sparse attention is told step and size."""

    def passed(which: Pass, *inputs: Tensor) -> Tensor:
        with sparse.in_pass(which.step, inputs[0]):
            return forward(which, *inputs)

    return passed
