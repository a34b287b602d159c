"""How many bytes a block moves beside its products and attention, held against diffusers' block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor
from torch.autograd.function import Function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mm_models
from mm_config.specs.wan import WanTransformerSpec
from mm_models.ops import attention, gate_residual, modulate, rms_norm, rope
from mm_models.ops.choosing import Ops, choose
from mm_models.ops.traffic import Traffic, bytes_of
from mm_models.wan.block import Block
from mm_models.wan.conditioning import Modulation
from tests.mm_models.counting import kernels_of

PRODUCTS = ("mm", "addmm", "bmm", "_scaled_dot_product")
NOTHING_MOVED = (
    "alias",
    "as_strided",
    "detach",
    "empty",
    "expand",
    "new_empty",
    "permute",
    "select",
    "slice.",
    "split",
    "squeeze",
    "t.",
    "transpose",
    "unbind",
    "unsqueeze",
    "view",
    "_reshape_alias",
    "_unsafe_view",
)
WIDTH, TOKENS, TEXT = 256, 512, 64


class Moved(TorchDispatchMode):
    """Adds up what each operation reads and writes, but for products and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.paused = False

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.__name__
        if not self.paused and not name.startswith((*PRODUCTS, *NOTHING_MOVED)):
            read = {id(one): one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
            written = [one for one in tree_leaves(out) if isinstance(one, Tensor)]
            self.bytes += bytes_of((*read.values(), *written))
        return out


class Alike(Function):
    """A value in place of an operation's, with gradients of its inputs that nobody computes."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *inputs: Tensor) -> Tensor:
        ctx.inputs = inputs
        return value.detach()

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *(torch.empty_like(one) for one in ctx.inputs))


def declared(moved: Moved, module: Any) -> Callable[..., Tensor]:
    """A form that moves what its operation declares."""

    def form(*arguments: Any) -> Tensor:
        moved.paused = True
        with torch.no_grad():
            value = module.reference(*arguments)
        moved.bytes += module.traffic(*arguments).bytes
        moved.paused = False
        return Alike.apply(value, *(one for one in tree_leaves(arguments) if isinstance(one, Tensor)))

    return form


def test_forms_declare_what_their_formulas_read_and_write() -> None:
    """Bytes written down by hand, of 2 samples, 6 tokens, width 24: a stream is 1,152, a row 192."""
    stream, row, weight = torch.zeros(2, 6, 24), torch.zeros(2, 24), torch.zeros(24)
    heads, table = torch.zeros(2, 6, 2, 12), rope.grid_table(rope.axis_table(12, 4), (1, 2, 3))

    def passes_of(traffic: Traffic) -> tuple[int, int]:
        return bytes_of(traffic.forward), bytes_of(traffic.backward)

    # x, shift, scale, out; gradient, x, scale, and the gradients of x, shift and scale.
    assert passes_of(modulate.traffic(stream, row, row, 1e-6)) == (
        1152 + 192 + 192 + 1152,
        3 * 1152 + 3 * 192,
    )
    # Written in half the width.
    half = modulate.traffic(stream, row, row, 1e-6, None, torch.bfloat16)
    assert passes_of(half) == (1152 + 192 + 192 + 576, 576 + 2 * 1152 + 3 * 192)
    # x, branch, gate, sum; its gradient, which is that of x, branch, gate, and the gradients of those two.
    assert passes_of(gate_residual.traffic(stream, stream, row)) == (3 * 1152 + 192, 3 * 1152 + 2 * 192)
    assert passes_of(rms_norm.traffic(stream, weight, 1e-6)) == (2 * 1152 + 96, 3 * 1152 + 2 * 96)
    # Cosines and sines of 6 tokens and 12 channels: 288 each.
    assert passes_of(rope.traffic(heads, table)) == (2 * 1152 + 2 * 288, 2 * 1152 + 2 * 288)


Passes = dict[str, Callable[[], Tensor]]


def passes(dtype: torch.dtype, ops: Ops, prepare: Callable[[torch.nn.Module], None]) -> Passes:
    """The forward pass of our block and of diffusers', of the same weights and inputs."""
    spec = WanTransformerSpec(
        hidden_size=WIDTH, num_attention_heads=2, ffn_dim=5 * WIDTH // 2, num_layers=1, text_dim=8
    )
    network = mm_models.build(spec, "cpu", ops=ops).to(dtype)
    mm_models.initialize(network, 0)
    ours = network.get_submodule("blocks.0")
    assert isinstance(ours, Block)
    theirs = WanTransformerBlock(WIDTH, spec.ffn_dim, 2, "rms_norm_across_heads", True, spec.eps)
    theirs.load_state_dict(ours.state_dict())
    for name, parameter in theirs.named_parameters():
        # What diffusers' loader casts; the norm and the table it keeps.
        if "norm2" not in name and "scale_shift_table" not in name:
            parameter.data = parameter.data.to(dtype)
    prepare(ours)
    prepare(theirs)
    stream = torch.randn(1, TOKENS, WIDTH, dtype=dtype, requires_grad=True)
    text = torch.randn(1, TEXT, WIDTH, dtype=dtype, requires_grad=True)
    rows = torch.randn(1, 6, WIDTH, requires_grad=True)
    table = rope.grid_table(rope.axis_table(WIDTH // 2, 8), (8, 8, 8))
    # Diffusers' tables are `[1, S, 1, D]`.
    shared = tuple(one[None] for one in table)
    return {
        "ours": lambda: ours(stream, text, Modulation(rows[:, 0], rows, None), table),
        "diffusers": lambda: theirs(stream, text, rows, shared),
    }


def moved_by(dtype: torch.dtype) -> dict[str, int]:
    """Bytes of a forward and backward pass of a block that isn't compiled."""
    moved, found = Moved(), dict[str, int]()
    ops = Ops(
        attention=attention.sdpa,
        rms_norm=declared(moved, rms_norm),
        rotate=declared(moved, rope),
        modulate=declared(moved, modulate),
        gate_residual=declared(moved, gate_residual),
    )
    for name, run in passes(dtype, ops, lambda _: None).items():
        moved.bytes = 0
        with moved:
            out = run()
            out.backward(torch.ones_like(out))
        found[name] = moved.bytes
    return found


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 0.5), (torch.bfloat16, 0.3)])
def test_a_block_moves_a_fraction_of_diffusers_eager_block(dtype: torch.dtype, most: float) -> None:
    found = moved_by(dtype)
    stream = TOKENS * WIDTH * dtype.itemsize
    share = found["ours"] / found["diffusers"]
    print(f"{found['ours'] / stream:.1f} of {found['diffusers'] / stream:.1f} streams: {share:.3f}")
    assert share <= most


def operations(dtype: torch.dtype) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Each operation with arguments, those of which have gradients that need them."""

    def drawn(*shape: int, narrow: bool = True) -> Tensor:
        return torch.randn(shape, dtype=dtype if narrow else torch.float32).requires_grad_()

    table = rope.grid_table(rope.axis_table(WIDTH // 2, 8), (8, 8, 8))
    stream, row, other = drawn(1, TOKENS, WIDTH), drawn(1, WIDTH, narrow=False), drawn(1, WIDTH, narrow=False)
    return {
        "rms_norm": (rms_norm, (stream, drawn(WIDTH), 1e-6)),
        "rope": (rope, (drawn(1, TOKENS, 2, WIDTH // 2), table)),
        "modulate": (modulate, (stream, row, other, 1e-6)),
        "gate_residual": (gate_residual, (stream, drawn(1, TOKENS, WIDTH), row)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", operations(torch.float32))
def test_the_compilers_forward_kernel_is_one_and_moves_what_is_declared(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, arguments = operations(dtype)[name]
    form = torch.compile(module.reference, fullgraph=True)
    forward, backward = kernels_of(monkeypatch, lambda: form(*arguments))
    traffic = module.traffic(*arguments)
    print(name, len(forward), len(backward), sum(forward) / bytes_of(traffic.forward), end=" ")
    print(sum(backward) / bytes_of(traffic.backward))
    # A number or two per token beside the stream.
    assert bytes_of(traffic.forward) == pytest.approx(sum(forward), rel=0.05)
    # On a CPU, sums over tokens are kernels of their own, which read the gradient again.
    assert bytes_of(traffic.backward) <= sum(backward) * 1.05


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiled_block_moves_what_diffusers_compiled_block_does(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = passes(dtype, choose("cpu"), lambda block: block.compile(fullgraph=True))
    found = {name: sum(sum(graph) for graph in kernels_of(monkeypatch, run)) for name, run in ways.items()}
    share = found["ours"] / found["diffusers"]
    print(f"{dtype} compiled: {share:.3f}")
    # Where the gradient of the rotation is read by several sums, the compiler computes it for each.
    assert share <= 1.05
