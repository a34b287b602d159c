"""PyTorch's compiler on the blocks of a network, and on an autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

from mm_config.schema import Problem, UserError
from mm_config.specs import CompileMode, CompileSpec

BLOCKS = "blocks"
"""The list of a network's blocks."""
MOST_GRAPHS = 64
"""Of one block's code: one for each size of clips, twice where a pass without gradients comes between."""


def compile_blocks(network: nn.Module, spec: CompileSpec, path: str = "spec.compile") -> None:
    """Compiles each block by itself, at its first call; blocks of one kind share what is compiled.

    The method `forward` is replaced: names of parameters stay, and hooks on a block run outside of it.

    Args:
        network: Its blocks are the items of its list `blocks`.
        spec: How; nothing is done unless it is enabled.
        path: The spec's canonical path, for errors.

    Raises:
        UserError: The network has no such list; and at the first call, the compiler can't do it.
    """
    if not spec.enabled:
        return
    blocks = getattr(network, BLOCKS, None)
    if not isinstance(blocks, nn.ModuleList):
        raise UserError(Problem(f"{path}.enabled", f"is True, but the network has no list `{BLOCKS}`"))
    torch._dynamo.config.recompile_limit = max(MOST_GRAPHS, torch._dynamo.config.recompile_limit)
    for block in blocks:
        compile_forward(block, spec, path)


def compile_autoencoder(autoencoder: Any, spec: CompileSpec, path: str = "spec.runtime.compile") -> None:
    """Compiles what an autoencoder names in its attribute `to_compile`, each at its first call.

    Args:
        autoencoder: Its latent frames come with caches of one, of two, and of as many frames as all later
            ones have, so that there are three graphs for each size of pictures or tiles.
        spec: How; nothing is done unless it is enabled.
        path: The spec's canonical path, for errors.

    Raises:
        UserError: It has nothing to compile; and at the first call, the compiler can't do it.
    """
    if not spec.enabled:
        return
    parts: tuple[nn.Module, ...] = getattr(autoencoder, "to_compile", ())
    if not parts:
        raise UserError(Problem(f"{path}_autoencoder", "is True, but the autoencoder has nothing to compile"))
    torch._dynamo.config.recompile_limit = max(MOST_GRAPHS, torch._dynamo.config.recompile_limit)
    for part in parts:
        compile_forward(part, spec, path)


def compile_forward(module: nn.Module, spec: CompileSpec, path: str) -> None:
    """Replaces the method `forward` of a module by a compiled one."""
    compiled = torch.compile(
        module.forward,
        backend=spec.backend.value,
        mode=None if spec.mode is CompileMode.DEFAULT else spec.mode.value,
        fullgraph=spec.fullgraph,
        dynamic=spec.dynamic,
    )
    module.forward = partial(_explained, compiled, path)


def compiled_graphs() -> int:
    """Graphs that this process has compiled so far; more than before a step means that it waited for one."""
    return counters["stats"]["unique_graphs"]


def compiled_shapes() -> tuple[tuple[int, ...], ...]:
    """The shapes of the stream that blocks were compiled for in this process, in their order."""
    return tuple(_SHAPES)


def told_compilations(shapes: Sequence[tuple[int, ...]]) -> str:
    """A line on compilations, given their shapes in their order: how many, and what forced each later one."""
    if not shapes:
        return "blocks compiled 0 times: those that were there served"
    parts: list[str] = []
    for index, shape in enumerate(shapes):
        why = "" if not index else "other inputs of " if shape in shapes[:index] else "the new shape "
        parts.append(f"for {why}{'x'.join(map(str, shape))}")
    return f"blocks compiled {len(shapes)} time{'s' if len(shapes) > 1 else ''}: {', again '.join(parts)}"


_SHAPES: list[tuple[int, ...]] = []


def _explained(compiled: Callable[..., Any], path: str, *inputs: Any, **named: Any) -> Any:
    before = compiled_graphs()
    try:
        return compiled(*inputs, **named)
    except TorchDynamoException as error:
        told = next(line for line in str(error).splitlines() if line.strip())
        hint = f"{path}.fullgraph=False lets what can't be compiled run as it is"
        raise UserError(Problem(path, f"a block can't be compiled: {told}; {hint}")) from error
    finally:
        if compiled_graphs() > before:
            stream = next(one for one in (*inputs, *named.values()) if isinstance(one, Tensor))
            _SHAPES.append(tuple(stream.shape))
