"""Operations on a device, with their gradients, against the reference forms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mm_models.ops import gelu, rope
from tests.npu_schema.agreement import BATCH, HEADS, KEYS, QUERIES, WIDTH, masks, normal
from tests.on_device.comparing import Outputs, Place


def attention(dtype: torch.dtype, place: Place) -> Outputs:
    """Values and gradients, without a mask and with one of every shape of four axes that broadcasts."""
    form, found = place.ops(dtype).attention, {}
    tokens = {"query": QUERIES, "key": KEYS, "value": KEYS}
    given = [normal(BATCH, count, HEADS, WIDTH, name=name) for name, count in tokens.items()]
    shapes = [mask for mask in masks() if mask is None or mask.ndim == 4]
    for number, mask in enumerate(shapes):
        there = None if mask is None else mask.to(place.device)
        found |= _with_gradients(f"mask {number}", lambda *x, m=there: form(*x, m), given, dtype, place)
    # As wide as Wan's heads, and longer than a kernel's block; the second caption is half as long.
    long = [normal(2, count, 2, 128, name="long") for count in (1030, 515, 515)]
    kept = (torch.arange(515) < torch.tensor([[515], [257]]))[:, None, None].to(place.device)
    return found | _with_gradients("captions", lambda *x: form(*x, kept), long, dtype, place)


def rms_norm(dtype: torch.dtype, place: Place) -> Outputs:
    """Values and gradients of the norm over all heads."""
    form = place.ops(dtype).rms_norm
    given = [normal(BATCH, 515, 1536), 1 + normal(1536, name="weight") / 8]
    return _with_gradients("norm", lambda *x: form(*x, 1e-6), given, dtype, place)


def rotation(dtype: torch.dtype, place: Place) -> Outputs:
    """Values and gradients of rotary embedding, also of more samples times heads than one call takes."""
    form, found = place.ops(dtype).rotate, {}
    for samples, heads, width in ((2, 3, 10), (30, 40, 6), (1, 12, 128)):
        cos, sin = rope.grid_table(rope.axis_table(width, 8), (2, 3, 2))
        table = (cos.to(place.device), sin.to(place.device))
        given = [normal(samples, 12, heads, width)]
        found |= _with_gradients(
            f"{samples}x{heads}x{width}", lambda x, t=table: form(x, t), given, dtype, place
        )
    return found


def modulation(dtype: torch.dtype, place: Place) -> Outputs:
    """Values and gradients of the modulated layer norm and the gated residual, per sample and per token."""
    ops, found = place.ops(dtype), {}
    stream, branch = normal(2, 12, 96).to(dtype), normal(2, 12, 96, name="branch").to(dtype)
    # Rows stay float32 where the stream has few bits.
    shift, scale = normal(2, 96, name="shift"), normal(2, 96, name="scale")
    for name, rows in (
        ("samples", None),
        ("tokens", (torch.arange(24).reshape(2, 12) // 12).to(place.device)),
    ):
        found |= _with_gradients(
            f"modulate {name}",
            lambda *x, r=rows: ops.modulate(*x, 1e-6, r),
            [stream, shift, scale],
            None,
            place,
        )
        found |= _with_gradients(
            f"gate {name}", lambda *x, r=rows: ops.gate_residual(*x, r), [stream, branch, shift], None, place
        )
    return found


def activation(dtype: torch.dtype, place: Place) -> Outputs:
    """Values and gradients of GELU, exact as in image encoders and in the tanh form of Wan's layers."""
    tanh = partial(torch.nn.functional.gelu, approximate="tanh")
    found: Outputs = {}
    for name, form in (("exact", gelu.exact), ("tanh", tanh)):
        found |= _with_gradients(name, form, [3 * normal(2, 515)], dtype, place)
    return found


def _with_gradients(
    name: str,
    compute: Callable[..., Tensor],
    given: list[Tensor],
    dtype: torch.dtype | None,
    place: Place,
) -> Outputs:
    """The output, and the gradients of its product with fixed numbers.

    What is expected of few bits is computed in float32, from the values that few bits can hold.
    """
    there = [one.to(place.device, dtype or one.dtype) for one in given]
    there = [(one.float() if place.expected else one).requires_grad_() for one in there]
    out = compute(*there)
    direction = normal(*out.shape, name="direction").to(dtype or out.dtype).to(out)
    gradients = torch.autograd.grad(out, there, direction)
    named = {f"{name}, gradient {number}": one for number, one in enumerate(gradients)}
    return {f"{name}, values": out.detach(), **named}
