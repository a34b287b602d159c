"""Activation checkpointing: the backward pass of a module computes its forward pass again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import (
    CheckpointPolicy,
    SelectiveCheckpointContext,
    _VersionWrapper,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from mm_config.specs import Recompute, RecomputeSpec
from mm_train.matching import matching_modules
from mm_train.offloading import Offload

ATTENTION = frozenset(
    {
        "aten._scaled_dot_product_cudnn_attention.default",
        "aten._scaled_dot_product_efficient_attention.default",
        "aten._scaled_dot_product_flash_attention.default",
        "aten._scaled_dot_product_flash_attention_for_cpu.default",
        "aten._scaled_dot_product_fused_attention_overrideable.default",
        "flash_attn._flash_attn_forward.default",
        "flash_attn_3.fwd.default",
        "mm.ring_attention.default",
        "npu.npu_fusion_attention.default",
    }
)
"""Operations that give attention's output and what its backward pass needs of the softmax: per row a number,
on an NPU two. By name, since not every installation has each of them."""
_SOFTMAX = frozenset({"aten._softmax.default", "aten._safe_softmax.default"})
_PRODUCT = "aten.bmm.default"


class AttentionIsKept:
    """Of one forward pass: the outputs of attention are kept, and nothing else.

    Attention that is spelt out has no operation of its own. Its output is the product that follows a softmax.
    What FSDP2 does to gather parameters is none of these operations, and thus done again.
    """

    def __init__(self) -> None:
        self._weights_are_there = False

    def __call__(
        self, _: SelectiveCheckpointContext, operation: Any, *args: Any, **kwargs: Any
    ) -> CheckpointPolicy:
        """What becomes of an operation's output."""
        name = str(operation)
        ends = name == _PRODUCT and self._weights_are_there
        if name in _SOFTMAX or ends:
            self._weights_are_there = not ends
        kept = ends or name in ATTENTION
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


def recompute(network: nn.Module, spec: RecomputeSpec, offload: Offload | None = None) -> None:
    """Makes each matched module keep its inputs alone, or those and the outputs of attention.

    The method `forward` is replaced and not the module, because a wrapper would change parameters' names.

    Args:
        network: Whose modules.
        spec: Which, and what they keep.
        offload: Where the outputs of attention wait; None leaves them where they are.

    Raises:
        UserError: A pattern matches a list of modules.
    """
    if spec.mode is Recompute.NONE:
        return
    again = partial(checkpoint, use_reentrant=False)
    if spec.mode is Recompute.SELECTIVE:
        again = partial(again, context_fn=_selective if offload is None else partial(_elsewhere, offload))
    for name in matching_modules(network, spec.modules, "spec.recompute.modules"):
        module = network.get_submodule(name)
        module.forward = partial(again, module.forward)


def _selective() -> Contexts:
    """What the forward pass and its repetition run in."""
    return create_selective_checkpoint_contexts(AttentionIsKept())


def _elsewhere(offload: Offload) -> Contexts:
    """`_selective`, but outputs of attention wait in the host's memory; autograd's hooks don't meet them."""
    keeping, giving = create_selective_checkpoint_contexts(AttentionIsKept())
    return _handing_over(keeping, offload), giving


@contextmanager
def _handing_over(keeping: Any, offload: Offload) -> Iterator[None]:
    with keeping:
        yield
    for kept in keeping.storage.values():
        # Releases of torch before 2.13 have lists.
        for index in tuple(kept) if isinstance(kept, dict) else range(len(kept)):
            kept[index] = tree_map_only(_VersionWrapper, partial(_Elsewhere, offload), kept[index])


class _Elsewhere(_VersionWrapper):
    """In place of a kept output: gives it from where it waits."""

    def __init__(self, offload: Offload, there: _VersionWrapper) -> None:
        self._offload, self._waiting = offload, offload.pack(there.val)

    def get_val(self, allow_cache_entry_mutation: bool) -> Any:
        """The output; what waits can't be changed in place."""
        return self._offload.unpack(self._waiting)
