"""The stream through a network's blocks: seen around them, or carried past them.

A network says by its attribute `by_token` that its blocks stand in a row, see `parallel.share_tokens`: the
first argument of a block is the stream, and what it gives is the next one's. For the length of one forward
pass others take the place of the items of its list `blocks`; hooks on blocks, compiled ones too, stay as
they are, and those of blocks that are skipped don't run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mm_config.schema import Problem, UserError
from mm_models.compiling import BLOCKS
from mm_models.parallel.context import BY_TOKEN


def require_stream(network: nn.Module, path: str) -> None:
    """Raises UserError where a network's blocks are not in a row, at the path of what needs that."""
    if not hasattr(network, BY_TOKEN) or not list(getattr(network, BLOCKS, ())):
        kind = type(network).__name__
        message = f"needs a network whose blocks stand in a row; {kind} has no `{BLOCKS}` with `{BY_TOKEN}`"
        raise UserError(Problem(path, message))


@contextmanager
def stream_seen(network: nn.Module, seen: Callable[[Tensor, Tensor], object]) -> Generator[None]:
    """Calls `seen(before, after)` in each forward pass: the stream before the first block, after the last."""
    blocks: list[Callable[..., Tensor]] = list(network.get_submodule(BLOCKS).children())
    begun: list[Tensor] = []
    head = blocks[0]

    def first(stream: Tensor, *inputs: Any, **named: Any) -> Tensor:
        begun.append(stream)
        return head(stream, *inputs, **named)

    blocks[0] = _Called(first)
    tail = blocks[-1]

    def last(stream: Tensor, *inputs: Any, **named: Any) -> Tensor:
        after = tail(stream, *inputs, **named)
        seen(begun.pop(), after)
        return after

    blocks[-1] = _Called(last)
    with _in_place_of_blocks(network, blocks):
        yield


@contextmanager
def stream_carried(network: nn.Module, carry: Callable[[Tensor], Tensor]) -> Generator[None]:
    """Computes `carry(before)` in place of all blocks."""

    def carried(stream: Tensor, *_: Any, **__: Any) -> Tensor:
        return carry(stream)

    with _in_place_of_blocks(network, [_Called(carried)]):
        yield


@contextmanager
def _in_place_of_blocks(network: nn.Module, others: Sequence[Any]) -> Generator[None]:
    own = network.get_submodule(BLOCKS)
    setattr(network, BLOCKS, nn.ModuleList(others))
    try:
        yield
    finally:
        setattr(network, BLOCKS, own)


class _Called(nn.Module):
    """A function at the place of a block."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        return self.function(*inputs, **named)
