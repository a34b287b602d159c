"""Ulysses: ranks that share tokens exchange them for heads; each attends with all tokens of its heads.

Shapes: B batch, P tokens of one rank, S tokens of all, H heads, N heads of one rank, D head width, R ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from mm_models.parallel.groups import named


@torch.library.custom_op("mm::all_to_all", mutates_args=())
def all_to_all(parts: Tensor, group: str) -> Tensor:
    """`[R, ...]`, a part for each rank of the group of that name -> `[R, ...]`, a part from each."""
    received = torch.empty_like(parts, memory_format=torch.contiguous_format)
    dist.all_to_all_single(received, parts.contiguous(), group=named(group))
    return received


@all_to_all.register_fake
def _(parts: Tensor, group: str) -> Tensor:
    return torch.empty_like(parts, memory_format=torch.contiguous_format)


def _keep_group(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
    ctx.group = inputs[1]


def _back(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    """Each part's gradient goes back to where the part came from."""
    return all_to_all(gradient, ctx.group), None


all_to_all.register_autograd(_back, setup_context=_keep_group)


def heads_of_all_tokens(
    query_BPHD: Tensor, key_BPHD: Tensor, value_BPHD: Tensor, group: ProcessGroup
) -> tuple[Tensor, Tensor, Tensor]:
    """All tokens' queries, keys and values of this rank's heads, `[B, S, N, D]` each."""
    ranks = group.size()
    by_rank = [one.unflatten(2, (ranks, -1)).movedim(2, 0) for one in (query_BPHD, key_BPHD, value_BPHD)]
    # Side by side for each token, so that one copy makes the message and none takes it apart.
    parts_RBP3ND = all_to_all(torch.stack(by_rank, dim=3), group.group_name)
    query_BSND, key_BSND, value_BSND = parts_RBP3ND.movedim(0, 1).flatten(1, 2).unbind(2)
    return query_BSND, key_BSND, value_BSND


def tokens_of_all_heads(out_BSND: Tensor, group: ProcessGroup) -> Tensor:
    """This rank's tokens with all heads, `[B, P, H, D]`."""
    parts_RBPND = out_BSND.unflatten(1, (group.size(), -1)).movedim(1, 0)
    return all_to_all(parts_RBPND, group.group_name).permute(1, 2, 0, 3, 4).flatten(2, 3)
