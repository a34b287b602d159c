"""A network over the ranks that make a video together, by steps that no network knows of."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from mm_config.specs import InferSpec
from mm_infer.layout import Layout
from mm_infer.passes import Branch, Forward, Pass
from mm_models import BLOCKS
from mm_models.parallel import share_tokens, split_matrices


def spread(network: nn.Module, spec: InferSpec, layout: Layout) -> None:
    """Has a network compute this rank's part of each pass, with this rank's part of the weights.

    Matrices are split first, so that what follows meets the layers as they compute; tokens are cut by hooks
    around all of it. Each block is a unit of FSDP2, whole on a rank only while it computes; what is left is
    whole during a pass.

    Args:
        network: On meta where the layout splits weights. It has no values yet.
        spec: The generation.
        layout: The ranks.

    Raises:
        UserError: The network's tokens can't be shared.
    """
    network.requires_grad_(False)
    if layout.matrices is not None:
        split_matrices(network, spec.model.tensor_plan(), layout.matrices)
    if layout.context is not None:
        share_tokens(network, layout.context)
    if layout.weights is not None:
        policy = MixedPrecisionPolicy(cast_forward_inputs=False)
        for unit in (*network.get_submodule(BLOCKS).children(), network):
            fully_shard(unit, mesh=layout.weights, mp_policy=policy, reshard_after_forward=True)


def on_two_ranks(forward: Forward, pair: ProcessGroup) -> Forward:
    """Passes of both branches of guidance of which each of two ranks makes one; both get both velocities.

    Passes of one branch, where guidance has no weight, are made by both.
    """
    branch = (Branch.PROMPT, Branch.NEGATIVE)[pair.rank()]

    def own_branch(which: Pass, *inputs: Tensor) -> Tensor:
        if which.branch is not Branch.BOTH:
            return forward(which, *inputs)
        own = [one.chunk(2)[pair.rank()] for one in inputs]
        velocity = forward(Pass(which.step, which.expert, branch), *own).contiguous()
        both = [torch.empty_like(velocity) for _ in range(2)]
        dist.all_gather(both, velocity, group=pair)
        return torch.cat(both)

    return own_branch
