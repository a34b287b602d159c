"""Whether a form of an operation computes what its reference does, in values and gradients."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from mm_models.ops import attention, rms_norm, rope
from mm_models.seeding import generator

Form = Callable[..., Tensor]

BATCH, QUERIES, KEYS, HEADS, WIDTH = 2, 4, 6, 4, 8
"""As many queries as heads, so that shapes alone can't tell which axis is which."""


def normal(*shape: int, name: str = "x") -> Tensor:
    """Random numbers that depend on the shape and the name."""
    return torch.randn(shape, generator=generator("npu", name, *shape))


def masks() -> list[Tensor | None]:
    """No mask, and masks of every shape that broadcasts; each query keeps a key and loses one."""
    shapes = itertools.chain(
        [(KEYS,), (QUERIES, KEYS), (HEADS, QUERIES, KEYS)],
        itertools.product((1, BATCH), (1, HEADS), (1, QUERIES), (KEYS,)),
    )
    drawn = [torch.rand(shape, generator=generator("mask", *shape)) > 0.5 for shape in shapes]
    for mask in drawn:
        mask[..., 0], mask[..., 1] = True, False
    return [None, *drawn]


def require_attention(form: Form) -> None:
    """Fails where attention differs from the reference, with and without masks."""
    query, key, value = (
        normal(BATCH, tokens, HEADS, WIDTH, name=name)
        for name, tokens in (("query", QUERIES), ("key", KEYS), ("value", KEYS))
    )
    for mask in masks():
        _require_equal(form, attention.reference, (query, key, value), (mask,))
    itself = normal(BATCH, QUERIES, HEADS, WIDTH)
    _require_equal(form, attention.reference, (itself, itself, itself), ())


def require_rms_norm(form: Form) -> None:
    """Fails where the norm differs from the reference."""
    for eps in (1e-6, 1e-2):
        x, weight = normal(BATCH, QUERIES, 12), normal(12, name="weight")
        _require_equal(form, rms_norm.reference, (x, weight), (eps,))
        _require_equal(form, rms_norm.reference, (x, weight.bfloat16().float()), (eps,))


def require_rotation(form: Form) -> None:
    """Fails where the rotation differs from the reference, also for more samples than one call takes."""
    for samples, heads, head_dim in ((2, 3, 10), (30, 40, 6), (1, 40, 128)):
        grid = (2, 3, 2)
        tables = rope.grid_table(rope.axis_table(head_dim, 8), grid)
        _require_equal(form, rope.reference, (normal(samples, 12, heads, head_dim),), (tables,))


def _require_equal(form: Form, reference: Form, inputs: tuple[Tensor, ...], rest: tuple[object, ...]) -> None:
    """Compares the outputs, then the gradients of their product with fixed numbers."""
    outputs, gradients = [], []
    for one in (form, reference):
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        outputs.append(one(*leaves, *rest))
        assert outputs[0].shape == outputs[-1].shape, "another shape"
        direction = normal(*outputs[-1].shape, name="direction")
        gradients.append(torch.autograd.grad(outputs[-1], leaves, direction, allow_unused=True))
    torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)
