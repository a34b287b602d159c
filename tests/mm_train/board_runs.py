"""A runs folder for the board, written as runs write theirs, without training anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments import tiny, tiny_high
from mm_config import replace
from mm_config.content.inputs import Input
from mm_config.options.run_options import RunOptions
from mm_config.runs import Run, comment_for
from mm_config.runs.folder import open_run
from mm_config.schema import RootSpec
from mm_config.specs import TrainedBy
from mm_config.specs.requests import GenerationRequest
from mm_data.video.writing import write_mp4
from mm_models import checkpoint

EVIL = "<script>document.title='taken'</script><img src=http://example.invalid/x onerror=alert(1)>"
PROMPT = "a red square moving up"
STEPS = 40
TEACHER = replace(tiny_high.SPEC, {"name": "teacher", "schedule.steps": STEPS, "schedule.warmup_steps": 4})
SIBLING = replace(TEACHER, {"name": "sibling", "optim.lr": 1e-3, "runtime.log_every": 5})
MADE = replace(
    tiny.SPEC, {"name": "made", "high_noise": TrainedBy(spec=TEACHER), "samples.prompts": (PROMPT, EVIL)}
)


def line(step: int, rate: float) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    return {
        "step": step,
        "loss": 2.0 * 0.97**step + rate,
        "lr": rate,
        "grad_norm": 1.0 / step,
        "samples_per_second": 30.0 + step % 3,
        "step_seconds": 0.25,
        "seconds": {"forward": 0.1, "backward": 0.15},
        "peak_gib": 0.5,
    }


def opened(spec: RootSpec, runs_dir: Path, inputs: Mapping[str, Input] | None = None) -> Run:
    """A run of a command line."""
    argv = ("experiments/tiny_high.py", "--spec.name", "x y")
    return open_run(spec, RunOptions(runs_dir, argv=argv), inputs=inputs)


def trained(spec: RootSpec, runs_dir: Path, colour: int, rate: float) -> Run:
    """A training with numbers, two videos at each of two steps, a checkpoint and a clip that was bad."""
    run = opened(spec, runs_dir, {})
    for step in range(1, STEPS + 1):
        run.log(line(step, rate))
        if step % 10 == 0:
            run.log(
                {
                    "step": step,
                    "validation": {"loss": 1.0 / step, "by_sigma": {"0.9": 1.0 / step, "0.95": 2.0}},
                }
            )
    for step in (20, 40):
        for prompt, name in ((PROMPT, "a-red-square-moving-up-7"), (EVIL, "script-7")):
            made(run, f"samples/step-{step:08d}/{name}.mp4", prompt, colour + step)
        tensors = {"model": {"w": torch.ones(4)}, "optimizer": {"m": torch.zeros(4)}}
        checkpoint.save(
            run.checkpoints_dir / f"step-{step:08d}", tensors, {"step": step, "validation": 1.0 / step}
        )
    bad = {"index": 3, "path": f"clips/{EVIL}.mp4", "stage": "decode", "reason": EVIL, "file": None}
    (run.path / "quarantine.jsonl").write_text(json.dumps(bad) + "\n")
    return run


def made(run: Run, name: str, prompt: str, colour: int) -> Path:
    """A video of a run, which says what it was asked to be."""
    file = run.path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    frames = np.full((9, 32, 32, 3), 16, dtype=np.uint8)
    frames[:, 8:24, 8:24, 0] = 100 + colour
    request = GenerationRequest(prompt=prompt, seed=7)
    write_mp4(file, frames, 8, comment_for(run.spec, request, run.record))
    return file


def filled(runs_dir: Path) -> dict[str, Run]:
    """Two trainings, a generation with the weights of one, a failure, and a training that is running."""
    teacher = trained(TEACHER, runs_dir, 20, 3e-3)
    teacher.finish(
        {
            "kind": "train",
            "loss": 0.5,
            "steps": STEPS,
            "seconds": 12.5,
            "checkpoint": f"checkpoints/step-{STEPS:08d}",
        }
    )
    sibling = trained(SIBLING, runs_dir, 60, 1e-3)
    sibling.finish({"kind": "train", "loss": 0.75, "steps": STEPS, "seconds": 10.0})
    taken = Input(
        digest="0" * 64, kind="trained-by", details={"run": teacher.record.path, "run_dir": str(teacher.path)}
    )
    generation = opened(MADE, runs_dir, {"spec.high_noise": taken})
    videos = [
        made(generation, f"samples/{name}.mp4", prompt, 90)
        for name, prompt in (("up-7", PROMPT), ("evil-7", EVIL))
    ]
    told = [{"name": one.name, "path": str(one), "frames": "0" * 64} for one in videos]
    generation.finish(
        {"kind": "infer", "videos": told, "seconds": 3.0, "timings": {"denoise": 2.0, "decode": 0.5}}
    )
    failed = opened(replace(TEACHER, {"name": "failed", "seed": 5}), runs_dir, {})
    failed.fail(f"RuntimeError: {EVIL}")
    live = opened(replace(TEACHER, {"name": "live", "seed": 6}), runs_dir, {})
    for step in range(1, 6):
        live.log(line(step, 3e-3))
    return {"teacher": teacher, "sibling": sibling, "made": generation, "failed": failed, "live": live}
