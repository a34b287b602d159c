"""Rotary position embedding over frames, height and width, in real numbers.

Neighbouring values of a head are a pair, which turns by an angle (the interleaved layout).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from mm_models.ops.chunks import chunks
from mm_models.ops.compiling import as_kernel
from mm_models.ops.traffic import Traffic
from mm_models.ops.widening import widened

THETA = 10_000.0

Rope = tuple[Tensor, Tensor]
"""Cosine and sine of each token's angles, `[S, 1, D]` float32 each; both values of a pair have the same."""


def axis_widths(head_dim: int) -> tuple[int, int, int]:
    """Parts of a head that rotate with frame, height and width; the frame's takes what does not divide."""
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


def axis_table(head_dim: int, max_seq_len: int, device: torch.device | str = "cpu") -> Rope:
    """Cosine and sine, `[max_seq_len, head_dim / 2]` float32, of position times frequency.

    The three axes stand side by side. On meta nothing is computed.
    """
    if torch.device(device).type == "meta":
        empty = torch.empty(max_seq_len, head_dim // 2, device=device)
        return empty, empty.clone()
    positions = torch.arange(max_seq_len, dtype=torch.float64)
    frequencies = [
        THETA ** -(torch.arange(0, width, 2, dtype=torch.float64) / width) for width in axis_widths(head_dim)
    ]
    # Float64 on the CPU, since not every accelerator has it and float32 angles are off by 1e-4 at 1024.
    angles = torch.outer(positions, torch.cat(frequencies))
    return angles.cos().float().to(device), angles.sin().float().to(device)


def grid_table(table: Rope, grid: tuple[int, int, int]) -> Rope:
    """Each token's row of the tables over axis positions.

    Args:
        table: As `axis_table` gives it.
        grid: Tokens along frames, height and width.
    """
    cos, sin = (_of_tokens(one, grid) for one in table)
    return cos, sin


def _of_tokens(table_NP: Tensor, grid: tuple[int, int, int]) -> Tensor:
    frames, height, width = grid
    widths = [part // 2 for part in axis_widths(2 * table_NP.shape[1])]
    by_frame, by_row, by_column = table_NP.split(widths, dim=1)
    rows = torch.cat(
        (
            by_frame[:frames, None, None].expand(-1, height, width, -1),
            by_row[None, :height, None].expand(frames, -1, width, -1),
            by_column[None, None, :width].expand(frames, height, -1, -1),
        ),
        dim=-1,
    )
    return rows.reshape(frames * height * width, 1, -1).repeat_interleave(2, dim=-1)


def reference(x_BSHD: Tensor, rope: Rope) -> Tensor:
    """Turns each pair (a, b) to (a cos - b sin, b cos + a sin), in float32; the result has x's dtype."""
    cos, sin = rope
    wide = widened(x_BSHD)
    # Flipping pairs is a matter of indices to a compiler; stacking their halves would be passes over memory.
    across = wide.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    signs = 2 * torch.arange(2, dtype=sin.dtype, device=sin.device) - 1
    signed_sin = (sin.unflatten(-1, (-1, 2)) * signs).flatten(-2)
    return (wide * cos + across * signed_sin).type_as(x_BSHD)


def compiled(x_BSHD: Tensor, rope: Rope) -> Tensor:
    """`reference` as a compiled kernel."""
    return as_kernel(reference, x_BSHD, rope)


def fused(x_BSHD: Tensor, rope: Rope) -> Tensor:
    """A step of tokens at a time, for CPUs; keeps nothing but the tables for the backward pass."""
    if torch.compiler.is_compiling():
        return reference(x_BSHD, rope)
    return _Fused.apply(x_BSHD, *rope)  # type: ignore[no-any-return]


class _Fused(Function):
    @staticmethod
    def forward(ctx: Any, x_BSHD: Tensor, cos_S1D: Tensor, sin_S1D: Tensor) -> Tensor:
        ctx.save_for_backward(cos_S1D, sin_S1D)
        return _turned(x_BSHD, cos_S1D, sin_S1D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BSHD: Tensor) -> tuple[Tensor, None, None]:
        cos_S1D, sin_S1D = ctx.saved_tensors
        return _turned(gradient_BSHD, cos_S1D, -sin_S1D), None, None


def _turned(x_BSHD: Tensor, cos_S1D: Tensor, sin_S1D: Tensor) -> Tensor:
    """`reference` in three vectorised passes: each value times its cosine, plus both neighbours.

    Taking every second value would not vectorise. So a neighbour of another pair is taken too, times zero.
    """
    in_pair = 1 - torch.arange(sin_S1D.shape[-1] - 1, dtype=sin_S1D.dtype, device=sin_S1D.device) % 2
    from_right, from_left = sin_S1D[..., :-1] * -in_pair, sin_S1D[..., 1:] * in_pair
    out_BSHD = torch.empty_like(x_BSHD, memory_format=torch.contiguous_format)
    batch, tokens, heads, head_dim = x_BSHD.shape
    for part in chunks(tokens, batch * heads * head_dim):
        wide = widened(x_BSHD[:, part])
        into = out_BSHD[:, part] if wide.dtype == out_BSHD.dtype else None
        turned = torch.mul(wide, cos_S1D[part], out=into)
        turned[..., :-1].addcmul_(wide[..., 1:], from_right[part])
        turned[..., 1:].addcmul_(wide[..., :-1], from_left[part])
        if into is None:
            out_BSHD[:, part] = turned
    return out_BSHD


NPU_ROWS = 999
"""Samples times heads that Ascend's kernel takes at most in the interleaved layout."""


def npu(x_BSHD: Tensor, rope: Rope) -> Tensor:
    """Ascend's fused rotation in float32, a few samples at a time where they are many.

    Its tables broadcast over samples and heads, so that all samples have the same tokens.
    """
    cos, sin = (table.unsqueeze(0) for table in rope)
    parts = x_BSHD.float().split(max(1, NPU_ROWS // x_BSHD.shape[2]))
    turned = [torch.ops.npu.npu_rotary_mul(part, cos, sin, "interleave") for part in parts]
    return (turned[0] if len(turned) == 1 else torch.cat(turned)).type_as(x_BSHD)


def traffic(x_BSHD: Tensor, rope: Rope) -> Traffic:
    """What a kernel moves: both passes turn one tensor into another by the tables."""
    return Traffic(forward=(x_BSHD, *rope, x_BSHD), backward=(x_BSHD, *rope, x_BSHD))
