"""AdamW whose moments take 8 bits, by torchao."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from mm_config.specs import AdamWSpec
from mm_train.clipping import local_of

BLOCK = 256
"""Values of a moment that share a scale."""


def adamw_of_bytes(groups: list[dict[str, Any]], spec: AdamWSpec) -> Optimizer:
    """torchao's AdamW. Its update is compiled at the first step, once for each shape.

    Moments are quantised where the rows of the whole parameter fill blocks; the others, few in a large
    network, stay float32. torchao itself looks at how much of a parameter is on the rank: then the number of
    ranks would decide what a checkpoint holds.
    """
    from torchao.optim import AdamW8bit  # pyright: ignore[reportMissingImports]  # It takes 4 s.

    class AdamWOfBytes(AdamW8bit):  # type: ignore[misc]
        def _new_buffer(self, p: Tensor, signed: bool) -> Tensor:
            local = local_of(p.detach())
            # torchao can't divide what is empty into blocks, and there is nothing to keep of it.
            in_blocks = _is_quantised(p) and local.numel() > 0
            made = self._subclass_zeros(local, signed, BLOCK) if in_blocks else torch.zeros_like(local)
            return _beside(p, made, p.shape) if isinstance(p, DTensor) else made

        @torch.no_grad()
        def stored_parts(self, moment: Tensor) -> dict[str, Tensor]:
            return _parts(moment) if _is_quantised(moment) else {"": moment}

    return AdamWOfBytes(groups, lr=spec.lr, betas=spec.betas, eps=spec.eps, block_size=BLOCK)


def _is_quantised(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and parameter.shape[1:].numel() % BLOCK == 0


def _parts(moment: Tensor) -> dict[str, Tensor]:
    """The tensors that a quantised moment consists of, whose memory is its own, sharded as it is.

    `codes` are a byte for each value, `scale` is a number for each block of a row.
    """
    local: Any = local_of(moment)
    blocks = moment.shape[1:].numel() // BLOCK
    empty = local.numel() == 0
    codes = local.to(torch.uint8) if empty else local.codes
    scale = local.new_zeros(0, blocks) if empty else local.scale.view(-1, blocks)
    if isinstance(moment, DTensor):
        codes = _beside(moment, codes, moment.shape)
        scale = _beside(moment, scale, torch.Size((moment.shape[0], blocks)))
    return {".codes": codes, ".scale": scale}


def _beside(whole: DTensor, local: Tensor, shape: torch.Size) -> DTensor:
    """A tensor of a whole shape, this rank's part of it given, that is sharded as another one is."""
    return DTensor.from_local(
        local,
        whole.device_mesh,
        whole.placements,
        run_check=False,
        shape=shape,
        stride=torch.empty(shape, device="meta").stride(),
    )
