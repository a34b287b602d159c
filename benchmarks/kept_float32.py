"""What a bfloat16 training step costs and gains where parameters stay in float32, as generation keeps them.

Two networks with equal weights run in turns: one with time embedder, modulation tables and norms in float32,
one with all parameters rounded. The gain is the error of the gradients against a network in float32.

    python benchmarks/kept_float32.py [--width 512] [--blocks 4] [--rounds 15]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import mm_models
from mm_config.specs import WanTransformerSpec
from mm_models import device
from mm_models.ops import choose

CPU = torch.device("cpu")


def built(spec: WanTransformerSpec, dtype: torch.dtype) -> nn.Module:
    network = mm_models.build(spec, device=CPU, dtype=dtype, ops=choose(CPU))
    mm_models.initialize(network, 0)
    # A network whose last layer is zero, as at the start, has no gradients elsewhere.
    with torch.no_grad():
        last = network.get_parameter("proj_out.weight")
        last.copy_(torch.randn(last.shape, generator=torch.Generator().manual_seed(1)) / last.shape[1] ** 0.5)
    return network


def step_of(network: nn.Module, inputs: tuple[Tensor, ...], dtype: torch.dtype) -> Callable[[], None]:
    latents, timestep, text = inputs

    def step() -> None:
        network.zero_grad(set_to_none=True)
        network(latents.to(dtype), timestep, text.to(dtype)).float().square().mean().backward()

    return step


def error(network: nn.Module, exact: nn.Module) -> float:
    """Of all gradients, relative to their norm."""
    pairs = [
        (ours.grad.float(), theirs.grad)
        for ours, theirs in zip(network.parameters(), exact.parameters(), strict=True)
        if ours.grad is not None and theirs.grad is not None
    ]
    off = sum(float((ours - theirs).square().sum()) for ours, theirs in pairs)
    return (off / sum(float(theirs.square().sum()) for _, theirs in pairs)) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    device.allow_tf32(CPU, False)
    spec = WanTransformerSpec(
        hidden_size=given.width,
        num_attention_heads=given.width // 64,
        ffn_dim=4 * given.width,
        num_layers=given.blocks,
        text_dim=256,
    )
    draws = torch.Generator().manual_seed(2)
    inputs = (
        torch.randn(1, 16, 4, 16, 16, generator=draws),
        torch.tensor([500.0]),
        torch.randn(1, 64, 256, generator=draws),
    )
    exact = built(spec, torch.float32)
    kept, rounded = built(spec, torch.bfloat16), built(spec, torch.bfloat16).to(torch.bfloat16)
    step_of(exact, inputs, torch.float32)()
    steps = {
        name: step_of(one, inputs, torch.bfloat16) for name, one in (("kept", kept), ("rounded", rounded))
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(given.rounds + 2):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if turn >= 2:
                times[name].append(time.process_time() - started)
    ratios = [ours / theirs for ours, theirs in zip(times["kept"], times["rounded"], strict=True)]
    print(f"processor time of a step, kept / rounded: {statistics.median(ratios):.3f}")
    print(f"error of the gradients: kept {error(kept, exact):.4f}, rounded {error(rounded, exact):.4f}")


if __name__ == "__main__":
    main()
