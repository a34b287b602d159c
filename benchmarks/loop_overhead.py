"""What our training loop costs over a bare forward pass, backward pass and update, in one process.

    python benchmarks/loop_overhead.py [--width 256] [--layers 4] [--batch 16] [--rounds 15] [--device cpu]

The ways take turns, step by step: the bare step on one batch in memory, our loop with nothing written, our
loop with metrics.jsonl, and with TensorBoard as well. All have a network of their own, of the same sizes, and
clips whose latents are kept. The loop does more than the bare step: it draws the noise, puts the batch
together, clips the gradients and sees that they are finite. Printed are medians of the quotients of each
round, by the clock and by the processor's time, which a busy machine changes less.
At the end a validation and a checkpoint, each in seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from comparing import seconds

import mm_models
from experiments import tiny_high
from mm_config import replace
from mm_config.options import RunOptions
from mm_config.specs import TrainSpec, ValidationSpec
from mm_train import steps, training
from mm_train.optim import build_optimizer


def bare_step(spec: TrainSpec, device: torch.device) -> Callable[[], object]:
    """Forward, backward and update of a network on one batch of the loop's sizes."""
    network = mm_models.build(spec.model, device=device, dtype=torch.float32)
    mm_models.initialize(network, 0)
    optimizer = build_optimizer(network, spec.optim, device)
    data, batch = spec.data, spec.data.batch_size
    shape = spec.autoencoder.latent_shape(data.num_frames, data.height, data.width)
    latents = torch.randn(batch, spec.model.in_channels, *shape, device=device)
    target = torch.randn_like(latents)
    timestep = torch.full((batch,), 900.0, device=device)
    text = torch.randn(batch, spec.text_encoder.max_tokens, spec.model.text_dim, device=device)

    def step() -> None:
        (network(latents, timestep, text) - target).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def loop(spec: TrainSpec, folder: Path, writes: bool) -> tuple[Callable[[], Any], Generator[Any, None, Any]]:
    """Our loop a step at a time."""
    fit = training.fit

    def fit_silently(work: Any, *rest: Any) -> Any:
        if not writes:
            work.sinks.clear()
            work.run.metrics_path.touch()  # A state is saved only after the lines of its steps.
        return fit(work, *rest)

    training.fit = fit_silently
    running = steps(spec, RunOptions(runs_dir=folder))
    next(running)
    training.fit = fit
    return lambda: next(running), running


def taking_turns(
    device: torch.device, ways: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Time of each way's steps by the clock and by the processor, in seconds."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, act in ways.items():
            worked = time.process_time()
            took = seconds(device, act)
            times[name].append((took, time.process_time() - worked))
    return times


def paired(times: list[tuple[float, float]], of_others: list[tuple[float, float]]) -> str:
    """The median of the quotients of each round, by the clock and by the processor."""
    rounds = list(zip(times, of_others, strict=True))
    by_clock, by_processor = (
        statistics.median(one[place] / other[place] for one, other in rounds) for place in (0, 1)
    )
    return f"{by_clock:.3f}, by processor time {by_processor:.3f}"


def occasional(spec: TrainSpec, folder: Path) -> dict[str, float]:
    """Seconds of a validation and of a checkpoint, as metrics.jsonl tells them."""
    changes: dict[str, Any] = {"validation": ValidationSpec(every_steps=1, batches=1, holdout=0.5)}
    changes |= {"checkpoint.every_steps": 1, "schedule.steps": 4, "data.batch_size": 8}
    for _ in steps(replace(spec, {**changes, "name": "occasional"}), RunOptions(runs_dir=folder)):
        pass
    (metrics,) = folder.glob("occasional/*/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    found = {
        part: [line["seconds"][part] for line in lines if part in line.get("seconds", ())]
        for part in ("validation", "checkpoint")
    }
    return {part: statistics.median(times) for part, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("width", 256), ("layers", 4), ("batch", 16), ("rounds", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    sizes = {"hidden_size": args.width, "ffn_dim": 4 * args.width, "num_layers": args.layers}
    changes = {f"model.{name}": value for name, value in sizes.items()}
    changes |= {"model.num_attention_heads": max(1, args.width // 64), "runtime.device": args.device}
    # Few clips: what is kept of them has been read, and checked, before anything is measured.
    changes |= {"data.dataset.clips_per_caption": 1, "data.workers": 1}
    changes |= {"data.batch_size": args.batch, "name": "loop", "schedule.warmup_steps": 0}
    spec = replace(tiny_high.SPEC, {**changes, "checkpoint.every_steps": 10_000, "runtime.log_every": 1000})
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        ways: dict[str, Callable[[], Any]] = {}
        running = list[Generator[Any, None, Any]]()
        ways |= {"bare": bare_step(spec, device)}
        for name, writes, board in (("loop", False, False), ("metrics", True, False), ("board", True, True)):
            named = replace(spec, {"runtime.tensorboard": board, "name": name})
            ways[name], generator = loop(named, runs, writes)
            running.append(generator)
        parts, plain = list[dict[str, float]](), ways["loop"]
        ways["loop"] = lambda: parts.append(plain().reading.seconds)
        taking_turns(device, ways, 3)
        parts.clear()
        times = taking_turns(device, ways, args.rounds)
        bare = statistics.median(took for took, _ in times["bare"])
        print(f"bare step {bare:.3f} s, width {args.width}, {args.layers} blocks, batch {args.batch}")
        for name in ("loop", "metrics", "board"):
            print(f"{name:<8} {paired(times[name], times['bare'])}")
        shares = {part: statistics.median(one[part] for one in parts) / bare for part in ("data", "encode")}
        print(f"of it kept latents {shares['data']:.1%}, noise and putting together {shares['encode']:.1%}")
        for generator in running:
            generator.close()
        for part, took in occasional(spec, runs).items():
            print(f"{part} {took:.3f} s")


if __name__ == "__main__":
    main()
