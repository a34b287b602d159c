"""A pass of our Wan transformer against diffusers': same weights, same inputs, one process.

    python benchmarks/dit_step.py [--width 1536] [--layers 2] [--tokens 2048] [--batch 1]
                                  [--dtype float32] [--device cpu] [--compile] [--profile] [--rounds 9]

The two take turns; the medians of their times are compared, and the minima in brackets. Below 1 ours is
faster, or takes less. With --compile each block is compiled by itself. Kept memory is what autograd holds
between forward and backward; peak memory what is allocated beyond weights and inputs, gradients included. In
bfloat16 diffusers keeps float32 the parameters that its loader keeps, and ours are all bfloat16, as FSDP2
gathers them.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial

import torch
from comparing import interleaved, kept_bytes, parsed, parser_of, peak_bytes, print_profile, ratio
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

import mm_models
from mm_config.specs.wan import WanTransformerSpec
from mm_models.ops.choosing import choose, described

FFN = {1536: 8960, 3072: 14336, 5120: 13824}
"""Widths of the published networks' feed-forward layers by their own."""
SIDE = 16
"""Tokens along height and width of each frame."""


def diffusers_twin(spec: WanTransformerSpec, weights: nn.Module) -> nn.Module:
    """Diffusers' network of the same architecture, with a copy of the weights."""
    with torch.device("meta"):
        twin = WanTransformer3DModel(
            patch_size=spec.patch_size,
            num_attention_heads=spec.num_attention_heads,
            attention_head_dim=spec.attention_head_dim,
            in_channels=spec.in_channels,
            out_channels=spec.out_channels,
            text_dim=spec.text_dim,
            freq_dim=spec.freq_dim,
            ffn_dim=spec.ffn_dim,
            num_layers=spec.num_layers,
        )
    twin.load_state_dict(copy.deepcopy(weights.state_dict()), assign=True)
    twin.rope = type(twin.rope)(spec.attention_head_dim, spec.patch_size, spec.rope_max_seq_len)
    return twin.requires_grad_(True)


def narrow(theirs: nn.Module, dtype: torch.dtype) -> None:
    """Casts what diffusers' loader casts."""
    wide = set(WanTransformer3DModel._keep_in_fp32_modules)
    for name, parameter in theirs.named_parameters():
        if not wide & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)


def train(network: nn.Module, predict: Callable[[], Tensor]) -> None:
    """A forward and a backward pass."""
    network.zero_grad()
    predict().float().square().mean().backward()


@torch.no_grad()
def infer(predict: Callable[[], Tensor]) -> None:
    """A forward pass alone."""
    predict()


def compare(options: argparse.Namespace) -> None:
    """Prints the ratios of one case."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    spec = WanTransformerSpec(
        hidden_size=options.width,
        num_attention_heads=options.width // 128,
        ffn_dim=FFN[options.width] if options.width in FFN else 4 * options.width,
        num_layers=options.layers,
    )
    ours = mm_models.build(spec, device, ops=choose(device, dtype=dtype))
    mm_models.initialize(ours, seed=0)
    nn.init.normal_(ours.get_parameter("proj_out.weight"), std=0.02)
    theirs = diffusers_twin(spec, ours).to(device)
    narrow(theirs, dtype)
    for parameter in ours.parameters():
        parameter.data = parameter.data.to(dtype)
    if options.compile:
        for network in (ours, theirs):
            for block in network.get_submodule("blocks").children():
                block.compile()
    frames = options.tokens // SIDE**2
    latents = torch.randn(options.batch, spec.in_channels, frames, 2 * SIDE, 2 * SIDE, device=device)
    timestep = torch.full((options.batch,), 500.0, device=device)
    text = torch.randn(options.batch, 512, spec.text_dim, device=device)
    cast = (latents.to(dtype), timestep, text.to(dtype))
    passes = {
        "ours": (ours, lambda: ours(latents, timestep, text)),
        "diffusers": (theirs, lambda: theirs(*cast, return_dict=False)[0]),
    }
    print(f"width {options.width}, {options.layers} blocks, {options.tokens} tokens, batch {options.batch},")
    print(f"{options.dtype} on {device}, {torch.get_num_threads()} threads, torch {torch.__version__},")
    print(f"{'compiled' if options.compile else 'eager'}; {described(choose(device, dtype=dtype))}")
    trains = {name: partial(train, *one) for name, one in passes.items()}
    infers = {name: partial(infer, predict) for name, (_, predict) in passes.items()}
    for act in (*infers.values(), *trains.values()):
        act()
    kept, peak = {}, {}
    for name, (network, predict) in passes.items():
        kept[name] = kept_bytes(predict, (*network.parameters(), *network.buffers(), latents, text, *cast))
        network.zero_grad()
        peak[name] = peak_bytes(device, trains[name])
    for title, sizes in (("kept memory", kept), ("peak memory", peak)):
        shown = f"{sizes['ours'] / sizes['diffusers']:.3f}"
        print(f"{title:18} {shown} ({sizes['ours'] / 1e6:.0f} of {sizes['diffusers'] / 1e6:.0f} MB)")
    for title, ways in (("forward", infers), ("forward, backward", trains)):
        times = interleaved(device, ways, options.rounds)
        print(f"{title:18} {ratio(times['ours'], times['diffusers'])} of the time")
    if options.profile:
        for name, act in trains.items():
            print(f"{name}:")
            print_profile(device, act)


def main() -> None:
    """Reads the options."""
    parser = parser_of(str(__doc__), width=1536, tokens=2048, rounds=9)
    parser.add_argument("--profile", action="store_true")
    compare(parsed(parser, SIDE**2))


if __name__ == "__main__":
    main()
