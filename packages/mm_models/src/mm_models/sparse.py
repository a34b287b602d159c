"""Sparse attention in a network: as one of its operations, which is told of each pass and of each block.

A network says by its attribute `by_token` that tokens meet each other in `Ops.self_attention` alone, see
`parallel.share_tokens`; it knows nothing of what that leaves out. Attention to texts and images is not its
own and stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm_config.specs import AttentionImpl, ModelSpec, SparseAttentionSpec
from mm_models.compiling import BLOCKS
from mm_models.ops import Ops
from mm_models.ops.block_masks import block_mask
from mm_models.ops.sparse_attention import SparseForm, choose_sparse


@attrs.define(eq=False)
class SparseAttention:
    """Self-attention that is exact or sparse, as the pass and the block at work have it."""

    spec: SparseAttentionSpec
    """What is left out, and where nothing is."""
    model: ModelSpec
    """The network's architecture, which says how many cells of latents a token is."""
    dense: Callable[..., Tensor]
    """Exact attention."""
    form: SparseForm
    """How the sparse one is computed."""
    ready: Any = None
    """What the form made of the mask of the block at work; None is exact."""
    of_pass: Any = None
    """The same of the pass, which its first blocks don't use."""
    known: dict[tuple[tuple[int, ...], torch.device], Any] = attrs.field(factory=dict)
    """What was made ready, by the grid of tokens and the device: a run has few sizes."""

    @property
    def __name__(self) -> str:
        return self.form.name

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[B, S, H, D]`; queries beyond the keys are padding and get zeros."""
        if self.ready is None:
            return self.dense(query, key, value)
        tokens = key.shape[1]
        out = self.form.attend(self.dense, query[:, :tokens], key, value, self.ready)
        return F.pad(out, (0, 0, 0, 0, 0, query.shape[1] - tokens))

    @contextmanager
    def in_pass(self, step: int, latents: Tensor) -> Generator[None]:
        """For the length of a forward pass of latents `[B, C, T, H, W]`, in a step from 0."""
        if step >= self.spec.dense_steps:
            self.of_pass = self._made_ready(latents)
        try:
            yield
        finally:
            self.ready = self.of_pass = None

    def attend_in(self, network: nn.Module) -> None:
        """Has the blocks of a network that was built with this operation tell which of them is at work."""
        for index, block in enumerate(network.get_submodule(BLOCKS).children()):
            block.register_forward_pre_hook(partial(self._enter, sparse=index >= self.spec.dense_layers))

    def _enter(self, _: nn.Module, __: Any, *, sparse: bool) -> None:
        self.ready = self.of_pass if sparse else None

    def _made_ready(self, latents: Tensor) -> Any:
        grid = self.model.token_grid(latents.shape[2:])
        if (key := (grid, latents.device)) not in self.known:
            mask_QK = block_mask(self.spec, grid)
            self.known[key] = self.form.ready(mask_QK, self.spec.block_size, math.prod(grid), latents.device)
        return self.known[key]


def with_sparse_attention(
    ops: Ops,
    spec: SparseAttentionSpec,
    model: ModelSpec,
    device: torch.device,
    wanted: AttentionImpl,
    *,
    compiled: bool,
) -> tuple[Ops, SparseAttention]:
    """Operations whose self-attention is sparse, and what has to be told of networks and passes.

    Args:
        ops: As they are chosen for one rank.
        spec: What is left out.
        model: The networks' architecture.
        device: Where they work.
        wanted: The implementation of attention.
        compiled: Whether their blocks are compiled.
    """
    form = choose_sparse(device, wanted, spec.block_size, compiled=compiled)
    sparse = SparseAttention(spec, model, ops.attention, form)
    return attrs.evolve(ops, self_attention=sparse), sparse
