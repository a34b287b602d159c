"""Each small operation in its forms, against diffusers' code for the same: time and memory.

    python benchmarks/ops.py [--width 1536] [--tokens 2048] [--batch 1] [--dtype float32] [--device cpu]
                             [--compile] [--rounds 15]

A form's figures are shares of diffusers'; below 1 it is faster, or takes less. Times are medians of rounds in
which all forms take turns, minima in brackets. Kept memory is what autograd holds between forward and
backward, inputs included where they are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from comparing import interleaved, kept_bytes, peak_bytes, ratio
from torch import Tensor, nn

from mm_models.ops import gate_residual, modulate, rms_norm, rope
from mm_models.ops.gelu_linear import gelu_linear

EPS = 1e-6
HEAD_DIM = 128


@attrs.frozen(eq=False)
class Case:
    """An operation: diffusers' code, our forms, and arguments for both; those that need gradients have it."""

    name: str
    diffusers: Callable[..., Tensor]
    forms: dict[str, Callable[..., Tensor]]
    arguments: tuple[Any, ...]


def normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As in diffusers' `WanAttention`."""
    return F.rms_norm(x, weight.shape, weight, eps)


def rotated(x: Tensor, table: rope.Rope) -> Tensor:
    """As in diffusers' `WanAttnProcessor`."""
    freqs_cos, freqs_sin = table
    x1, x2 = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = freqs_cos[..., 0::2], freqs_sin[..., 1::2]
    out = torch.empty_like(x)
    out[..., 0::2] = x1 * cos - x2 * sin
    out[..., 1::2] = x1 * sin + x2 * cos
    return out.type_as(x)


def modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """As in diffusers' `WanTransformerBlock`."""
    normed = F.layer_norm(x.float(), x.shape[-1:], None, None, eps)
    return (normed * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)).type_as(x)


def gated(x: Tensor, branch: Tensor, gate: Tensor) -> Tensor:
    """As in diffusers' `WanTransformerBlock`."""
    return (x.float() + branch.float() * gate.unsqueeze(1)).type_as(x)


def cases(options: argparse.Namespace) -> list[Case]:
    """Every operation at the sizes asked for."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    batch, tokens, width = options.batch, options.tokens, options.width

    def random(*shape: int, narrow: bool = True) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype if narrow else torch.float32).requires_grad_()

    x, branch, weight = random(batch, tokens, width), random(batch, tokens, width), random(width)
    shift, scale = random(batch, width, narrow=False), random(batch, width, narrow=False)
    heads = random(batch, tokens, width // HEAD_DIM, HEAD_DIM)
    angles = torch.randn(tokens, 1, HEAD_DIM // 2, device=device).repeat_interleave(2, -1)
    table = angles.cos(), angles.sin()
    layer = nn.Linear(2 * width, width, device=device, dtype=dtype)
    gelu = nn.GELU(approximate="tanh")

    def forms(module: Any) -> dict[str, Callable[..., Tensor]]:
        named = ("reference", "fused", "compiled") if options.compile else ("reference", "fused")
        return {name: getattr(module, name) for name in named}

    return [
        Case("rms_norm", normed, forms(rms_norm), (x, weight, EPS)),
        Case("rope", rotated, forms(rope), (heads, table)),
        Case("modulate", modulated, forms(modulate), (x, shift, scale, EPS)),
        Case("gate_residual", gated, forms(gate_residual), (x, branch, shift)),
        Case(
            "GELU and linear",
            lambda hidden, *_: layer(gelu(hidden)),
            {"fused": lambda hidden, *_: gelu_linear(hidden, layer)},
            (random(batch, tokens, 2 * width), layer.weight, layer.bias),
        ),
    ]


def differentiate(form: Callable[..., Tensor], arguments: tuple[Any, ...], direction: Tensor) -> None:
    """A forward and a backward pass."""
    wanted = [one for one in arguments if isinstance(one, Tensor)]
    torch.autograd.grad(form(*arguments), wanted, direction)


def compare(case: Case, device: torch.device, rounds: int) -> None:
    """Prints a line per form."""
    ways = {"diffusers": case.diffusers, **case.forms}
    direction = torch.randn_like(case.diffusers(*case.arguments))
    trains = {name: partial(differentiate, form, case.arguments, direction) for name, form in ways.items()}
    for act in trains.values():
        act()
    times = interleaved(device, trains, rounds)
    kept = {name: kept_bytes(partial(form, *case.arguments)) for name, form in ways.items()}
    peak = {name: peak_bytes(device, act) for name, act in trains.items()}
    for name in case.forms:
        shares = (f"{one[name] / max(1, one['diffusers']):6.2f}" for one in (kept, peak))
        print(f"{case.name:16} {name:10} {ratio(times[name], times['diffusers']):>16}", *shares, sep="  ")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("width", 1536), ("tokens", 2048), ("batch", 1), ("rounds", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    print(
        f"width {options.width}, {options.tokens} tokens, batch {options.batch}, {options.dtype} on "
        f"{options.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{'operation':16} {'form':10} {'time':>16}    kept    peak, as shares of diffusers'")
    for case in cases(options):
        compare(case, torch.device(options.device), options.rounds)


if __name__ == "__main__":
    main()
