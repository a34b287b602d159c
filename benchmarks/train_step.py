"""A training step of our Wan transformer beside diffusers': same weights, inputs and optimizer, one process.

    python benchmarks/train_step.py [--width 512] [--layers 2] [--tokens 1024] [--batch 1] [--dtype float32]
                                    [--device cpu] [--compile] [--rounds 5]

A step is a forward pass, a backward pass and AdamW's update. Ours keeps everything between the passes, or
recomputes as `recompute.mode` says; diffusers' network has no selective recomputation. With --compile each
block is also compiled by itself, in both. All take turns; a time is the ratio of medians to diffusers' eager
step that keeps everything and, in brackets, of minima. Peak memory is what is allocated beyond weights,
moments and inputs. MFU counts three forward passes of the spec's own FLOPs (attention in full, nothing twice)
against the fastest square product of this format that was measured on this device.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any

import torch
from comparing import interleaved, parsed, parser_of, peak_bytes, ratio, seconds
from dit_step import FFN, SIDE, diffusers_twin, narrow, train
from torch import Tensor, nn

import mm_models
from mm_config.specs.parallel import CompileSpec, Recompute, RecomputeSpec
from mm_config.specs.wan import WanTransformerSpec
from mm_models.compiling import compile_blocks
from mm_models.ops.choosing import choose, described
from mm_train.recompute import recompute

TEXT = 512
"""Tokens of the caption."""
PRODUCT = {"cpu": 1024}
"""Rows of the square matrices whose product tells the peak; 8192 on an accelerator."""


class Step:
    """A network, its optimizer and what it is given."""

    def __init__(self, network: nn.Module, inputs: tuple[Tensor, ...], **options: Any) -> None:
        self.network, self.inputs, self.options = network, inputs, options
        # A rate of zero keeps the weights equal; the arithmetic is the same.
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=0.0, fused=True)

    def __call__(self) -> None:
        train(self.network, self.predict)
        self.optimizer.step()

    def predict(self) -> Tensor:
        """The velocity."""
        out = self.network(*self.inputs, **self.options)
        return out[0] if isinstance(out, tuple) else out


def networks(
    spec: WanTransformerSpec, device: torch.device, dtype: torch.dtype
) -> tuple[nn.Module, nn.Module]:
    """Ours and diffusers', in a format."""
    ours = mm_models.build(spec, device, ops=choose(device, dtype=dtype))
    mm_models.initialize(ours, seed=0)
    theirs = diffusers_twin(spec, ours).to(device)
    narrow(theirs, dtype)
    for parameter in ours.parameters():
        parameter.data = parameter.data.to(dtype)
    return ours, theirs


def steps(options: argparse.Namespace, spec: WanTransformerSpec) -> dict[str, Step]:
    """All that are compared, by name."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    latents = torch.randn(
        options.batch, spec.in_channels, options.tokens // SIDE**2, 2 * SIDE, 2 * SIDE, device=device
    )
    timestep = torch.full((options.batch,), 500.0, device=device)
    text = torch.randn(options.batch, TEXT, spec.text_dim, device=device)
    inputs = latents.to(dtype), timestep, text.to(dtype)
    found: dict[str, Step] = {}
    for compiled in (False, True) if options.compile else (False,):
        how = ", compiled" if compiled else ""
        for mode in Recompute:
            ours, theirs = networks(spec, device, dtype)
            recompute(ours, RecomputeSpec(mode=mode))
            compile_blocks(ours, CompileSpec(enabled=compiled))
            found[f"ours, recompute {mode.value}{how}"] = Step(ours, inputs)
            if mode is Recompute.SELECTIVE:
                continue
            if mode is Recompute.FULL:
                theirs.enable_gradient_checkpointing()  # type: ignore[operator]
            for block in theirs.get_submodule("blocks").children() if compiled else ():
                block.compile()
            found[f"diffusers, recompute {mode.value}{how}"] = Step(theirs, inputs, return_dict=False)
    return found


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of some products of square matrices."""
    size = PRODUCT.get(device.type, 8192)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = [seconds(device, partial(torch.mm, a, b)) for _ in range(20)]
    return 2 * size**3 / min(times)


def compare(options: argparse.Namespace) -> None:
    """Prints a line for each step."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    spec = WanTransformerSpec(
        hidden_size=options.width,
        num_attention_heads=options.width // 128,
        ffn_dim=FFN.get(options.width) or 4 * options.width,
        num_layers=options.layers,
    )
    compared = steps(options, spec)
    for step in compared.values():
        step()
    peaks = {name: peak_bytes(device, step) for name, step in compared.items()}
    peak_rate = product_rate(device, dtype)
    times = interleaved(device, compared, options.rounds)
    peak_rate = max(peak_rate, product_rate(device, dtype))
    flops = 3 * options.batch * spec.forward_flops((options.tokens // SIDE**2, 2 * SIDE, 2 * SIDE), TEXT)
    print(f"width {options.width}, {options.layers} blocks, {options.tokens} tokens, batch {options.batch},")
    print(f"{options.dtype} on {device}, {torch.get_num_threads()} threads, torch {torch.__version__};")
    print(f"{described(choose(device, dtype=dtype))}; products reach {peak_rate / 1e12:.3g} TFLOP/s")
    base = "diffusers, recompute none"
    print(f"{'':38} {'time':>15} {'seconds':>8} {'MFU':>6} {'peak memory':>18}")
    for name in compared:
        middle = statistics.median(times[name])
        mfu = flops / min(times[name]) / peak_rate
        memory = f"{peaks[name] / peaks[base]:.2f} ({peaks[name] / 1e6:.0f} MB)"
        print(f"{name:38} {ratio(times[name], times[base]):>15} {middle:8.3g} {mfu:6.1%} {memory:>18}")


def main() -> None:
    """Reads the options."""
    parser = parser_of(str(__doc__), width=512, tokens=1024, rounds=5)
    compare(parsed(parser, SIDE**2))


if __name__ == "__main__":
    main()
