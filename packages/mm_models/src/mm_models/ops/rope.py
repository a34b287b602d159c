"""Rotary position embedding over frames, height and width."""

import torch
from torch import Tensor

THETA = 10_000.0


def axis_widths(head_dim: int) -> tuple[int, int, int]:
    """Parts of a head that rotate with frame, height and width; the frame's takes what does not divide."""
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


def rope_angles(head_dim: int, max_seq_len: int, device: torch.device | str = "cpu") -> Tensor:
    """`[max_seq_len, head_dim / 2]` float64: position times frequency, the three axes side by side."""
    positions = torch.arange(max_seq_len, dtype=torch.float64, device=device)
    frequencies = [
        THETA ** -(torch.arange(0, width, 2, dtype=torch.float64, device=device) / width)
        for width in axis_widths(head_dim)
    ]
    return torch.outer(positions, torch.cat(frequencies))


def grid_table(axis_table: Tensor, grid: tuple[int, int, int], head_dim: int) -> Tensor:
    """Takes each token's row of a table over axis positions.

    Args:
        axis_table: `[max_seq_len, head_dim / 2]`, a cosine or sine per position and frequency.
        grid: Tokens along frames, height and width.

    Returns:
        `[tokens, 1, head_dim / 2]`; the middle axis broadcasts over heads.
    """
    frames, height, width = grid
    by_frame, by_row, by_column = axis_table.split([part // 2 for part in axis_widths(head_dim)], dim=1)
    table = torch.cat(
        (
            by_frame[:frames, None, None].expand(-1, height, width, -1),
            by_row[None, :height, None].expand(frames, -1, width, -1),
            by_column[None, None, :width].expand(frames, height, -1, -1),
        ),
        dim=-1,
    )
    return table.reshape(frames * height * width, 1, -1)


def rotate(x_BSHD: Tensor, cos_S1P: Tensor, sin_S1P: Tensor) -> Tensor:
    """Turns neighbouring pairs of a head by the token's angles (P = D / 2 pairs), in float32."""
    # On the CPU a complex product is one vectorised pass where the real form takes six.
    form = rotate_complex if x_BSHD.device.type == "cpu" else rotate_reference
    return form(x_BSHD.float(), cos_S1P, sin_S1P).type_as(x_BSHD)


def rotate_reference(x_BSHD: Tensor, cos_S1P: Tensor, sin_S1P: Tensor) -> Tensor:
    """The rotation in real numbers, which every accelerator has kernels for."""
    even, odd = x_BSHD.unflatten(-1, (-1, 2)).unbind(-1)
    pairs = (even * cos_S1P - odd * sin_S1P, even * sin_S1P + odd * cos_S1P)
    return torch.stack(pairs, dim=-1).flatten(-2)


def rotate_complex(x_BSHD: Tensor, cos_S1P: Tensor, sin_S1P: Tensor) -> Tensor:
    """The same rotation as a product of complex numbers."""
    pairs = torch.view_as_complex(x_BSHD.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.complex(cos_S1P, sin_S1P)).flatten(-2)
