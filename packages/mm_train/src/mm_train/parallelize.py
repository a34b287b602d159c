"""From a network on meta to one on the run's devices, by steps that no network knows of.

Each is a function of its own. It works on what those before it have made: their order stands here alone.
"""

from __future__ import annotations

import torch
from torch import nn

from mm_config.specs import TrainSpec
from mm_models import BLOCKS, compile_blocks
from mm_models.parallel import share_tokens, split_matrices
from mm_train.layout import Layout
from mm_train.matching import matching_modules
from mm_train.offloading import Offload
from mm_train.recompute import recompute
from mm_train.sharding import shard


def parallelize(network: nn.Module, spec: TrainSpec, layout: Layout, device: torch.device) -> None:
    """Has a network, on meta and with its trainable parameters decided, spread over ranks and spare memory.

    Matrices are split over ranks first, so that what follows meets the layers as they compute. Ranks that
    share tokens cut them by hooks around all of it; what they add to `forward` is next, and repeated with it.
    Recomputation comes before the compiler, which then sees what is kept. What is kept of a block that is
    compiled, is kept by the block as a whole. FSDP2's hooks lie around all of it and gather parameters once
    for both passes of a backward. Parameters are DTensors afterwards, where there is a process group, and
    keep their names.

    Raises:
        UserError: A pattern of the spec matches a list of modules, there are no blocks to compile, or the
            network's tokens can't be shared.
    """
    if layout.parameters is not None and spec.parallel.tensor > 1:
        split_matrices(network, spec.model.tensor_plan(), layout.parameters["tensor"])
    kept, compiled = spec.recompute, spec.compile.enabled
    offload = Offload(device, kept.offload_ahead) if kept.offload else None
    if layout.context is not None:
        share_tokens(network, layout.context)
    recompute(network, kept, None if compiled else offload)
    compile_blocks(network, spec.compile)
    if offload is not None:
        patterns = (f"{BLOCKS}.*",) if compiled else kept.modules
        offload.around(network, matching_modules(network, patterns, "spec.recompute.modules"))
    if layout.parameters is not None:
        shard(network, spec.fsdp, spec.precision, layout.parameters, device)


def shard_device(spec: TrainSpec, device: torch.device) -> torch.device:
    """Where parameters, gradients and what optimizers keep lie between their uses on a device."""
    return torch.device("cpu") if spec.fsdp.offload else device


def materialize(network: nn.Module, device: torch.device, shards: torch.device | None = None) -> None:
    """Gives a network memory for this rank's part of its weights, still without values, and its buffers.

    Args:
        network: On meta.
        device: Where it computes.
        shards: Where its parameters lie in between, see `shard_device`; None for there.
    """
    network.to_empty(device=shards or device)
    network.init_buffers(device)  # type: ignore[operator]
