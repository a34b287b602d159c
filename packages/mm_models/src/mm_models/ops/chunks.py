"""Work on many tokens in steps that stay in the cores' caches."""

from collections.abc import Iterator

import torch
from torch import Tensor

VALUES_PER_THREAD = 2**18
"""Of one step: float32 temporaries of 1 MiB stay in cache, and their memory is used again at every step.

Larger ones the system hands out page by page each time, which takes longer than the arithmetic; many smaller
steps cost more in starting threads.
"""

LEAST_VALUES = 2**14
"""Runs that are shorter on average cost more in calls than they save in passes over memory."""

RowChunk = tuple[int, slice]
"""A row of modulation, and tokens next to each other, counted over all samples, that have it."""


def chunks(tokens: int, width: int, first: int = 0) -> Iterator[slice]:
    """All tokens from the first on, a step at a time."""
    step = max(1, VALUES_PER_THREAD * torch.get_num_threads() // width)
    for start in range(first, first + tokens, step):
        yield slice(start, min(start + step, first + tokens))


def row_chunks(x_BSD: Tensor, rows_BS: Tensor | None) -> list[RowChunk] | None:
    """All tokens, a row and a step at a time; None where rows change too often for it to pay.

    Args:
        x_BSD: The residual stream.
        rows_BS: The row of each token; None where sample b uses row b for all its tokens.
    """
    batch, tokens, width = x_BSD.shape
    rows, lengths = list(range(batch)), [tokens] * batch
    if rows_BS is not None:
        found = rows_BS.flatten().unique_consecutive(return_counts=True)
        rows, lengths = (values.tolist() for values in found)
    if x_BSD.numel() < LEAST_VALUES * len(rows):
        return None
    parts: list[RowChunk] = []
    first = 0
    for row, length in zip(rows, lengths, strict=True):
        parts += [(row, part) for part in chunks(length, width, first)]
        first += length
    return parts
