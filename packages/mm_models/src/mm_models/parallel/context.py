"""Context parallelism: ranks that share the tokens of a sample.

A network's stream is cut before its first block and gathered after its last one; what lies around the
blocks is computed whole by every rank. In between each rank has equally many tokens, the last ones padded
with zeros: as queries these are dropped when the stream is gathered, as keys they never take part.

Shapes: B batch, S tokens of a sample, P tokens of one rank, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

import attrs
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.utils._pytree import tree_map_only

from mm_config.schema import Problem, UserError
from mm_models.compiling import BLOCKS

BY_TOKEN = "by_token"
"""The attribute of a network that says which arguments of its blocks go by token, see `share_tokens`."""
NOT_BY_TOKEN = "not_by_token"
"""The attribute that names the linear layers of a block whose input is a caption or an image."""
_COUNT = "tokens_of_the_sample"


@attrs.define(eq=False)
class Context:
    """The place of this process among those that share a sample's tokens.

    Neighbours in the Ulysses group have neighbouring tokens; a Ulysses group has one block of the ring.
    """

    ring: ProcessGroup | None
    """Those that pass keys and values round; None for this rank alone."""
    ulysses: ProcessGroup | None
    """Those that exchange heads for tokens; None for this rank alone."""
    tokens: int = 0
    """Of the sample whose blocks are computed."""

    @property
    def place(self) -> int:
        """Which part of the tokens this rank has."""
        return _rank(self.ring) * _size(self.ulysses) + _rank(self.ulysses)

    @property
    def first(self) -> int:
        """How many tokens stand before this rank's."""
        return self.place * self.share(self.tokens)

    def share(self, tokens: int) -> int:
        """How many of so many tokens a rank has, padding included."""
        return -(-tokens // (_size(self.ring) * _size(self.ulysses)))

    def cut(self, whole: Tensor, axis: int) -> Tensor:
        """A copy of this rank's part of a tensor that goes by token; its adjoint sends nothing."""
        tokens, share = whole.shape[axis], self.share(whole.shape[axis])
        start = min(self.place * share, tokens)
        part = whole.narrow(axis, start, min(share, tokens - start))
        if part.shape[axis] == share:
            return part.clone(memory_format=torch.contiguous_format)
        shape = [*part.shape]
        shape[axis] = share - part.shape[axis]
        return torch.cat((part, part.new_zeros(shape)), axis)

    def gather(self, part_BPD: Tensor, tokens: int) -> Tensor:
        """`[B, P, D]` -> `[B, S, D]`, equal on all ranks."""
        for group in (self.ulysses, self.ring):
            if group is not None:
                part_BPD = _Gather.apply(part_BPD, group)
        return part_BPD[:, :tokens].clone()  # FSDP2 warns of views.


def context_of(ranks: DeviceMesh) -> Context | None:
    """The place of this process on a mesh with the axes `ring` and `ulysses`; None where nobody shares."""
    ring, ulysses = (
        ranks[axis].get_group() if ranks[axis].size() > 1 else None for axis in ("ring", "ulysses")
    )
    return Context(ring, ulysses) if ring or ulysses else None


def _size(group: ProcessGroup | None) -> int:
    return 1 if group is None else group.size()


def _rank(group: ProcessGroup | None) -> int:
    return 0 if group is None else group.rank()


class _Gather(Function):
    """Every rank's part one after the other, along the second axis.

    Its adjoint sums gradients over ranks and gives each its part. What follows is the same on all ranks of a
    sample, and so is its gradient: the sum is a multiple, and nothing is sent.
    """

    @staticmethod
    def forward(ctx: Any, part_BPD: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        parts_RBPD = part_BPD.new_empty(group.size(), *part_BPD.shape)
        dist.all_gather(list(parts_RBPD), part_BPD.contiguous(), group=group)
        return parts_RBPD.movedim(0, 1).flatten(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BSD: Tensor) -> tuple[Tensor, None]:
        part_BPD = gradient_BSD.chunk(ctx.group.size(), dim=1)[ctx.group.rank()]
        return part_BPD * ctx.group.size(), None


def share_tokens(network: nn.Module, context: Context) -> None:
    """Has the blocks of a network compute this rank's tokens alone.

    The network's blocks are the items of its list `blocks`. The first argument of a block is the stream,
    `[B, S, ...]`, and so is its output. The network's attribute `by_token` names the other arguments that go
    by token, or fields of named tuples among them, each with the axis of its tensors that tokens lie on:
    `{"rope": 0, "modulation.rows_BS": 1}`; by this it says as well that tokens meet each other in
    `Ops.self_attention` alone, which `over_ranks` has to have chosen. Linear layers of a block have tokens as
    their input, but for those that its attribute `not_by_token` names; the others are given the context, for
    what has to know a token's place.

    It comes before what replaces the blocks' method `forward`, so that a repeated forward pass knows the
    count of its tokens, whichever sample came between.

    Raises:
        UserError: The network does not say which arguments go by token.
    """
    by_token: Mapping[str, int] | None = getattr(network, BY_TOKEN, None)
    if by_token is None:
        message = f"the network has no attribute `{BY_TOKEN}`: ranks can't share its tokens"
        raise UserError(Problem("spec.parallel", message))
    blocks = list(network.get_submodule(BLOCKS).children())
    cutting = _Cutting(context, by_token, tuple(signature(blocks[0].forward).parameters))
    elsewhere = getattr(network, NOT_BY_TOKEN, ())
    for block in blocks:
        for name, layer in block.named_modules():
            if isinstance(layer, nn.Linear) and name not in elsewhere:
                layer.context = context  # type: ignore[assignment]
        cut = partial(cutting.before_block, first=block is blocks[0])
        block.register_forward_pre_hook(cut, with_kwargs=True)
        block.forward = partial(_counted, context, block.forward)
    blocks[-1].register_forward_hook(cutting.after_blocks)


def _counted(context: Context, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    tokens = named.pop(_COUNT)
    if context.tokens != tokens:  # The compiler sees no change in its graph.
        context.tokens = tokens
    return forward(*inputs, **named)


@attrs.define(eq=False)
class _Cutting:
    """What comes before the blocks of one network and after them."""

    context: Context
    """The ranks."""
    by_token: Mapping[str, int]
    """What is cut, and along which axis."""
    arguments: tuple[str, ...]
    """A block's, by name, in order."""
    cut: dict[str, tuple[Any, Any]] = attrs.field(factory=dict)
    """Of each entry of `by_token` in the pass at work, the whole and this rank's part."""

    def before_block(
        self, _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], *, first: bool
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = dict(zip(self.arguments, inputs, strict=False)) | named
        stream = self.arguments[0]
        if first:
            self.cut.clear()
            self.context.tokens = given[stream].shape[1]
            given[stream] = self.context.cut(given[stream], 1)
        for path, axis in self.by_token.items():
            name, *fields = path.split(".")
            if name in given:
                given[name] = self._part(given[name], path, fields, axis)
        return (), given | {_COUNT: self.context.tokens}

    def after_blocks(self, _: nn.Module, inputs: Any, part_BPD: Tensor) -> Tensor:
        self.cut.clear()
        return self.context.gather(part_BPD, self.context.tokens)

    def _part(self, value: Any, path: str, fields: list[str], axis: int) -> Any:
        if fields:
            inner = self._part(getattr(value, fields[0]), path, fields[1:], axis)
            return value._replace(**{fields[0]: inner})
        # Blocks have the same in common: it is cut, and perhaps padded, once.
        whole, part = self.cut.get(path, (None, None))
        if whole is not value:
            part = tree_map_only(Tensor, lambda one: self._of_tokens(one, path, axis), value)
            self.cut[path] = value, part
        return part

    def _of_tokens(self, whole: Tensor, path: str, axis: int) -> Tensor:
        if whole.shape[axis] != self.context.tokens:
            shape, tokens = list(whole.shape), self.context.tokens
            raise ValueError(f"{path} has the shape {shape}: axis {axis} is not that of the {tokens} tokens")
        return self.context.cut(whole, axis)
