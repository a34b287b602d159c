"""Muon against AdamW on `tiny_high`: in how many steps it reaches the loss that AdamW ends with.

    python benchmarks/muon.py [--steps 450] [--adamw 1e-3 3e-3 1e-2] [--muon 1e-3 3e-3 1e-2] [--runs-dir DIR]

Each optimizer trains with each of its rates, on the same clips, noise and noise levels; runs that are there
already are read again. A curve is the mean loss of the steps of a tenth of the run. The best rate of an
optimizer is the one whose curve ends lowest.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import mm_train
from experiments import tiny_high
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.specs import AdamWSpec, MuonSpec

POINTS = 10
"""Of a printed curve."""


def losses(optim: AdamWSpec | MuonSpec, steps: int, runs_dir: Path) -> list[float]:
    """The loss of each step."""
    changes = {"optim": optim, "schedule.steps": steps, "schedule.warmup_steps": steps * 100 // 450}
    name = f"{type(optim).__name__}-{optim.lr:g}"
    spec = replace(tiny_high.SPEC, {**changes, "name": name, "checkpoint.every_steps": steps})
    result = mm_train.train(spec, RunOptions(runs_dir=runs_dir, if_needed=True))
    lines = (result.run_dir / "metrics.jsonl").read_text().splitlines()
    return [found["loss"] for line in lines if "loss" in (found := json.loads(line))]


def smoothed(values: list[float], window: int) -> list[float]:
    """The mean of each step and those before it, `window` together."""
    return [sum(values[end - window : end]) / window for end in range(window, len(values) + 1)]


def main() -> None:
    """Trains, prints all curves, and compares the best ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--adamw", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2])
    parser.add_argument("--muon", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2])
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    window = max(1, arguments.steps // POINTS)
    specs = {
        "AdamW": [AdamWSpec(lr=lr, betas=(0.9, 0.99)) for lr in arguments.adamw],
        "Muon": [MuonSpec(lr=lr, betas=(0.9, 0.99)) for lr in arguments.muon],
    }
    best: dict[str, list[float]] = {}
    for name, optimizers in specs.items():
        for optim in optimizers:
            curve = smoothed(losses(optim, arguments.steps, arguments.runs_dir), window)
            shown = " ".join(f"{loss:.4f}" for loss in curve[::window])
            print(f"{name:6} lr {optim.lr:<7g} {shown}  ends {curve[-1]:.4f}", flush=True)
            if name not in best or curve[-1] < best[name][-1]:
                best[name] = curve
    goal = best["AdamW"][-1]
    print(f"AdamW ends with {goal:.4f} after {arguments.steps} steps")
    for name, curve in best.items():
        # Steps differ in noise: a lucky one may come long before, so both optimizers' are told.
        first = next((step for step, loss in enumerate(curve, window) if loss <= goal), None)
        print(f"{name} is there first after {first} steps")
    lower = sum(muon < adamw for muon, adamw in zip(best["Muon"], best["AdamW"], strict=True))
    print(f"Muon's curve is the lower one at {lower} of {len(best['Muon'])} steps, whose noise is the same")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
