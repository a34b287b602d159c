"""Videos of latents a few frames at a time, so that no device holds one whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.distributed import ProcessGroup

from mm_config.schema import Problem, UserError
from mm_models.autoencoders.ranks import ranks_of


def decoded_slices(autoencoder: Any, latents_BCTHW: Tensor) -> Iterator[Tensor]:
    """The video `[B, 3, t, H, W]` of each latent frame in turn, about [-1, 1], float32 in the host's memory.

    An autoencoder that can do it has a method `decode_slices`; of another one the video comes in one piece.
    """
    if (slices := getattr(autoencoder, "decode_slices", None)) is not None:
        yield from slices(latents_BCTHW)
    else:
        yield autoencoder.decode(latents_BCTHW).float().cpu()


def share_autoencoder(autoencoder: Any, group: ProcessGroup, timeout_seconds: int) -> None:
    """Has the ranks of a group, which all call this, share the work of an autoencoder.

    From then on they encode and decode the same at the same time, and each gets all of it: equal to the bit
    with what one process computes. Where large pictures are cut into tiles, ranks take the tiles in turn,
    else the latent frames.

    Args:
        autoencoder: One with an attribute `ranks`.
        group: Of the ranks that make one video; None of them may be left out.
        timeout_seconds: Longest wait of a rank for the others.

    Raises:
        UserError: The autoencoder's work can't be shared.
    """
    if not hasattr(autoencoder, "ranks"):
        why = "is True, but the work of this autoencoder can't be shared; leave it out"
        raise UserError(Problem("spec.runtime.parallel.autoencoder", why))
    if group.size() > 1:
        autoencoder.ranks = ranks_of(group, timeout_seconds)
