"""A generation stage by stage against diffusers' `WanPipeline`: same weights, same inputs, one process.

    python benchmarks/generate.py [--width 1536] [--layers 2] [--tokens 2048] [--dtype float32] [--device cpu]
                                  [--compile] [--rounds 5] [--own 9] [--only own|stages|memory|load]

Stages: `step` is a denoising step with guidance (two passes one by one, or one of twice the batch; diffusers'
pipeline makes two), `decode` makes pixels, `load` fills a network from safetensors beside a plain read of the
same bytes by the same process. Texts are encoded by transformers' own network in both. The programs take
turns; medians of their times are compared, minima in brackets. Below 1 ours is faster.

`own` sets a step beside its own products and attention: on a CPU by the profiler's self time on one thread,
the least of the rounds for each operation; on an accelerator by its kernels' times. Peak memory is that of a
forked child, beyond what its parent had; on an accelerator the allocator's.

On CUDA, Wan's published sizes have floors to compare with (`FLOORS`): seconds of a step of both passes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from comparing import interleaved, parsed, parser_of, peak_bytes, ratio
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from dit_step import FFN, SIDE, diffusers_twin, narrow
from safetensors.torch import save_file
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import mm_models
from mm_config.options.locations import Location, Locations
from mm_config.specs import (
    CompileSpec,
    Expert,
    ReleasedWeights,
    SamplerSpec,
    WanAutoencoderSpec,
    WanTransformerSpec,
)
from mm_infer.denoise import guided_velocity
from mm_infer.passes import by_networks
from mm_models.ops.choosing import choose, described

FLOORS = {
    "1.3B, 480p, 81 frames": 0.84,
    "5B, 704 x 1280, 121 frames": 1.49,
    "14B, 480p, 81 frames": 4.78,
    "14B, 720p, 81 frames": 18.8,
}
"""Seconds of a step on an H200: products at 790 TFLOP/s, attention at 680, all else at 4 TB/s."""
GOALS = {torch.float32: 1.04, torch.bfloat16: 1.08}
"""A step's time as a multiple of its own products and attention."""
PRODUCTS = ("mm", "gemm", "conv", "attention", "attn", "flash", "fmha", "cutlass", "nvjet")
"""Parts of the names of operations and kernels that are products and attention."""
GUIDANCE = SamplerSpec().guidance_high_noise


def is_product(name: str) -> bool:
    """Whether an operation, or a kernel, is a product or attention."""
    return any(part in name.lower() for part in PRODUCTS) and "_fused_" not in name.lower()


def own_ratio(device: torch.device, act: Callable[[], object], rounds: int) -> tuple[float, dict[str, float]]:
    """A step's self time over that of its products and attention, and each operation's in milliseconds."""
    least: dict[str, float] = {}
    kinds = [ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(ProfilerActivity.CUDA)
    act()
    for _ in range(rounds):
        with profile(activities=kinds) as recorded:
            act()
        for event in recorded.key_averages():
            found: Any = event
            spent: float = found.self_cpu_time_total if device.type == "cpu" else found.self_device_time_total
            least[found.key] = min(least.get(found.key, spent), spent)
    products = sum(spent for name, spent in least.items() if is_product(name))
    return sum(least.values()) / products, {name: spent / 1e3 for name, spent in least.items()}


def forked_peak(act: Callable[[], object]) -> int:
    """Bytes that a forked child's memory grew by at its peak while something ran."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        torch.set_num_threads(1)  # A fork has none of its parent's threads.
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        act()
        os.write(write, str(_status("VmHWM") - before).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return int(told)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def steps_of(options: argparse.Namespace) -> dict[str, Callable[[], Tensor]]:
    """A denoising step of each program: its velocity under guidance."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    spec = WanTransformerSpec(
        hidden_size=options.width,
        num_attention_heads=options.width // 128,
        ffn_dim=FFN[options.width] if options.width in FFN else 4 * options.width,
        num_layers=options.layers,
    )
    ours = mm_models.build(spec, device, ops=choose(device, dtype=dtype)).eval().requires_grad_(False)
    mm_models.initialize(ours, seed=0)
    torch.nn.init.normal_(ours.get_parameter("proj_out.weight"), std=0.02)
    theirs = diffusers_twin(spec, ours).to(device).eval().requires_grad_(False)
    narrow(theirs, dtype)
    ours.to(dtype)
    mm_models.compile_blocks(ours, CompileSpec(enabled=options.compile), "--compile")
    mm_models.compile_blocks(theirs, CompileSpec(enabled=options.compile, fullgraph=False), "--compile")
    latents = torch.randn(1, spec.in_channels, options.tokens // SIDE**2, 2 * SIDE, 2 * SIDE, device=device)
    timestep = torch.full((1,), 500.0, device=device)
    text, negative = (torch.randn(1, 512, spec.text_dim, device=device).to(dtype) for _ in range(2))
    shown, forward = latents.to(dtype), by_networks({Expert.SINGLE: ours})

    @torch.inference_mode()
    def mine(*, batched: bool) -> Tensor:
        inputs = (shown, timestep, text, negative, GUIDANCE)
        return guided_velocity(forward, 0, Expert.SINGLE, *inputs, batched=batched)

    @torch.no_grad()
    def diffusers() -> Tensor:
        # As in `WanPipeline.__call__`, one pass after the other.
        conditional, unconditional = (
            theirs(hidden_states=shown, timestep=timestep, encoder_hidden_states=one, return_dict=False)[0]
            for one in (text, negative)
        )
        return unconditional + GUIDANCE * (conditional - unconditional)

    ways = {
        "sequential": partial(mine, batched=False),
        "batched": partial(mine, batched=True),
        "diffusers": diffusers,
    }
    found = {name: act().float() for name, act in ways.items()}
    apart = (found["sequential"] - found["diffusers"]).norm() / found["diffusers"].norm()
    print(f"velocities are {float(apart):.1e} of their norm apart")
    return ways


def compare_steps(options: argparse.Namespace, steps: Mapping[str, Callable[[], Tensor]]) -> None:
    """Prints the ratios of steps, and of their peaks."""
    device = torch.device(options.device)
    if options.only in (None, "stages"):
        times = interleaved(device, steps, options.rounds)
        for name in ("sequential", "batched"):
            shown = f"{statistics.median(times[name]):.3f} s"
            print(f"step, {name:10} {ratio(times[name], times['diffusers'])} of the time, {shown}")
        if device.type == "cuda":
            print(f"floors of whole networks' steps: {FLOORS}")
    if options.only in (None, "memory"):
        measure = forked_peak if device.type == "cpu" else partial(peak_bytes, device)
        peaks = {name: measure(act) for name, act in steps.items()}
        for name in ("sequential", "batched"):
            share = peaks[name] / peaks["diffusers"]
            print(f"peak, {name:10} {share:.3f} ({peaks[name] / 1e6:.0f} MB)")
    if options.only in (None, "own"):
        threads = torch.get_num_threads()
        if device.type == "cpu":
            torch.set_num_threads(1)
        for name in ("sequential", "diffusers"):
            found, spent = own_ratio(device, steps[name], options.own)
            goal = GOALS[getattr(torch, options.dtype)]
            print(f"own products, {name:10} {found:.3f} (goal {goal})")
            for operation, took in sorted(spent.items(), key=lambda pair: -pair[1])[:8]:
                print(f"    {took:9.1f} ms  {operation}")
        torch.set_num_threads(threads)


def compare_decoding(options: argparse.Namespace) -> None:
    """Prints the ratio of decoding by an autoencoder of a quarter of Wan's width."""
    device, dtype = torch.device(options.device), torch.float32
    theirs: Any = AutoencoderKLWan(base_dim=24)
    theirs = theirs.to(device, dtype).eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        (Path(folder) / "vae").symlink_to(folder)
        spec = WanAutoencoderSpec(weights=ReleasedWeights(name="benchmark/vae", subfolder="vae"), base_dim=24)
        places = Locations((Location("benchmark/vae", Path(folder), "benchmark"),))
        ours = mm_models.build_autoencoder(spec, device=device, locations=places)
    mean, std = (
        torch.tensor(one, device=device).view(1, -1, 1, 1, 1)
        for one in (theirs.config.latents_mean, theirs.config.latents_std)
    )
    latents = torch.randn(1, 16, 2, 16, 16, device=device)

    @torch.no_grad()
    def mine() -> Tensor:
        return torch.cat([*mm_models.decoded_slices(ours, latents)], dim=2)

    @torch.no_grad()
    def diffusers() -> Tensor:
        return theirs.decode(latents * std + mean, return_dict=False)[0]

    apart = float((mine().cpu().clamp(-1, 1) - diffusers().cpu().clamp(-1, 1)).abs().max())
    times = interleaved(device, {"ours": mine, "diffusers": diffusers}, options.rounds)
    print(f"decode           {ratio(times['ours'], times['diffusers'])} of the time, {apart:.1e} apart")


def compare_loading(options: argparse.Namespace) -> None:
    """Prints a load as a share of the speed of a plain read into new memory."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    spec = WanTransformerSpec(hidden_size=1536, num_attention_heads=12, ffn_dim=8960, num_layers=8)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_file({name: torch.randn(one).to(dtype) for name, one in spec.parameter_shapes().items()}, file)

        def load() -> None:
            network = mm_models.build(spec, device, dtype=dtype)
            mm_models.load(network, Path(folder))

        def read() -> None:
            kept = torch.empty(file.stat().st_size, dtype=torch.uint8)
            missing = kept.numpy().data
            with file.open("rb", buffering=0) as opened:
                while missing:
                    missing = missing[opened.readinto(missing) :]
            kept.to(device)

        load()
        worked: dict[str, list[float]] = {"load": [], "read": []}
        passed: dict[str, list[float]] = {"load": [], "read": []}
        for _ in range(options.rounds):
            for name, act in (("read", read), ("load", load)):
                before, started = time.process_time(), time.perf_counter()
                act()
                passed[name].append(time.perf_counter() - started)
                worked[name].append(time.process_time() - before)
    print(
        f"load: {ratio(passed['read'], passed['load'])} of a plain read's speed, "
        f"{ratio(worked['read'], worked['load'])} by the processors' time"
    )


def main() -> None:
    """Reads the options, and measures."""
    parser = parser_of(str(__doc__), width=1536, tokens=2048, rounds=5)
    parser.add_argument("--own", type=int, default=9, help="rounds of the profiler")
    parser.add_argument("--only", choices=("own", "stages", "memory", "load"), help="one part alone")
    options = parsed(parser, SIDE**2)
    print(f"width {options.width}, {options.layers} blocks, {options.tokens} tokens, {options.dtype} on")
    print(f"{options.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(described(choose(torch.device(options.device), dtype=getattr(torch, options.dtype))))
    if options.only != "load":
        compare_steps(options, steps_of(options))
    if options.only in (None, "stages"):
        compare_decoding(options)
    if options.only in (None, "load"):
        compare_loading(options)


if __name__ == "__main__":
    main()
