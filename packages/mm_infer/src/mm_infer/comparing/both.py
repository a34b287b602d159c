"""Two specs on the same requests: checked together, made one after the other, and laid side by side."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import attrs
import torch

from mm_config import diff, exact_hash, replace, rules, spec_hash
from mm_config.console import say
from mm_config.options import RunOptions
from mm_config.planning import infer_work
from mm_config.schema import SEMANTIC, Problem, UserError, concerning, gathering
from mm_config.specs import GenerationRequest, InferSpec
from mm_config.stored import dump
from mm_data import write_mp4
from mm_infer.comparing.calibrating import Changes, steps_to_skip
from mm_infer.comparing.measures import psnr, relative_error, ssim
from mm_infer.comparing.side import Side, make_side
from mm_infer.images import video_size
from mm_infer.opening import open_generation
from mm_infer.stages import frame_rate


@attrs.frozen(eq=False)
class Compared:
    """Both sides, and the change of each step where they were calibrated."""

    requests: tuple[GenerationRequest, ...]
    """What both made."""
    sides: tuple[Side, Side]
    """The first, which is the reference, and the second."""
    changes: dict[int, float] | None
    """Of the first one's steps."""

    def speed(self) -> dict[str, float]:
        """How many times as fast the second is, by its step and by each stage; NaN where it took no time."""
        one, other = self.sides
        return {"step": _ratio(one.seconds_per_step, other.seconds_per_step)} | {
            stage: _ratio(seconds, other.stages[stage]) for stage, seconds in one.stages.items()
        }

    def flops(self) -> tuple[int, int]:
        """What each side computes for all videos, as `mm plan` counts it."""
        one, other = (sum(_flops(side.spec, request) for request in self.requests) for side in self.sides)
        return one, other

    def videos(self) -> list[dict[str, Any]]:
        """Of each request, how far the decoded frames are apart; a PSNR of None is of equal frames."""
        found: list[dict[str, Any]] = []
        pairs = zip(*(side.frames for side in self.sides), strict=True)
        for request, (one, other) in zip(self.requests, pairs, strict=True):
            decibels = psnr(one, other)
            found.append(
                {
                    "prompt": request.prompt,
                    "seed": request.seed,
                    "psnr": None if math.isinf(decibels) else decibels,
                    "ssim": ssim(one, other),
                }
            )
        return found

    def latents(self) -> list[dict[str, Any]]:
        """The relative error of the latents after each step; after the last alone, if noise levels differ."""
        one, other = (side.steps for side in self.sides)
        alike = [step.sigma for step in one] == [step.sigma for step in other]
        pairs = list(zip(one, other, strict=True)) if alike else [(one[-1], other[-1])]
        first = len(one) - len(pairs)
        return [
            {
                "step": first + index,
                "sigma": a.sigma,
                "expert": a.expert.value,
                "relative_error": relative_error(a.latents, b.latents),
            }
            for index, (a, b) in enumerate(pairs)
        ]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        sides = [
            {
                "spec_hash": spec_hash(side.spec),
                "exact_hash": exact_hash(side.spec),
                "run_dir": str(side.run_dir),
                "seconds_per_step": side.seconds_per_step,
                "stages": side.stages,
                "flops": flops,
            }
            for side, flops in zip(self.sides, self.flops(), strict=True)
        ]
        cache = self.sides[1].spec.feature_cache
        calibrated = None
        if self.changes is not None and cache is not None:
            changes = [{"step": step, "change": change} for step, change in self.changes.items()]
            calibrated = {"skipped": cache.skipped, "changes": changes}
        return {
            "sides": sides,
            "speed": {name: None if math.isnan(one) else one for name, one in self.speed().items()},
            "videos": self.videos(),
            "latents": self.latents(),
            "calibration": calibrated,
        }


def compare(
    specs: tuple[InferSpec, InferSpec],
    words: tuple[str, str],
    options: tuple[RunOptions, RunOptions],
    *,
    calibrated: Path | None = None,
    announce: Callable[[str], object] = say,
) -> Compared:
    """Makes the videos of the same requests by one spec and then by the other, each as a run of its own.

    Args:
        specs: The reference and the other one.
        words: What the user calls them.
        options: How each is carried out, with the same requests.
        calibrated: The file for the second spec with the steps that its feature cache skips, found on what
            the first one makes; None takes the second as it is.
        announce: Says what comes next.

    Raises:
        UserError: One can't be carried out, or can't make these requests; or their videos have different
            sizes; or a calibration is asked for that is none.
    """
    requests = options[0].requests
    assert requests is not None, "both are asked for the same"
    if calibrated is not None:
        _check_calibration(specs, words)
        specs = (specs[0], replace(specs[1], "feature_cache.skipped", ()))
    problems: list[Problem] = []
    for spec, word, how in zip(specs, words, options, strict=True):
        # What is idle is said by the run itself.
        with gathering(problems), concerning(word), redirect_stdout(io.StringIO()):
            open_generation(spec, how, requests)
    problems += [] if problems else _size_problems(specs, words, requests)
    if problems:
        raise UserError(problems)
    changes = None if calibrated is None else Changes()
    announce(f"A: {words[0]}")
    one = make_side(specs[0], options[0], changes)
    second = specs[1]
    if changes is not None and calibrated is not None:
        second = replace(second, "feature_cache.skipped", steps_to_skip(second, changes.of_steps()))
        rules.check(second)
        dump(second, calibrated)
    announce(f"B: {words[1]}")
    other = make_side(second, options[1])
    return Compared(requests, (one, other), None if changes is None else changes.of_steps())


def write_pairs(compared: Compared, paths: Sequence[Path]) -> None:
    """Writes each request's two videos as one mp4, A on the left, whose comment names both runs.

    Raises:
        UserError: A file can't be written.
    """
    one, other = compared.sides
    comment = f"mm compare: left {one.run_dir}, right {other.run_dir}"
    for path, left, right in zip(paths, one.frames, other.frames, strict=True):
        try:
            path.parent.mkdir(exist_ok=True)
            write_mp4(path, torch.cat((left, right), dim=2), frame_rate(one.spec), comment=comment)
        except OSError as error:
            raise UserError(f"{path}: can't be written: {error.strerror or error}") from error


def _check_calibration(specs: tuple[InferSpec, InferSpec], words: tuple[str, str]) -> None:
    """Raises UserError where the specs are not one without and with a feature cache."""
    exact, cached = specs
    if cached.feature_cache is None:
        raise UserError(Problem(words[1], "has no spec.feature_cache whose steps could be found"))
    if exact.feature_cache is not None:
        raise UserError(Problem(words[0], "has a spec.feature_cache; changes are measured without one"))
    without = replace(cached, "feature_cache", None)
    if spec_hash(without) != spec_hash(exact):
        paths = [change.path for change in diff(exact, without) if change.role is SEMANTIC]
        message = f"differs from {words[1]} by more than its feature_cache: {', '.join(paths)}"
        raise UserError(Problem(words[0], message))


def _size_problems(
    specs: tuple[InferSpec, InferSpec], words: tuple[str, str], requests: Sequence[GenerationRequest]
) -> list[Problem]:
    """One line where frames can't be laid side by side."""
    for index, request in enumerate(requests):
        one, other = (_shown_size(spec, request) for spec in specs)
        if one != other:
            message = f"makes {other} of request {index}, {words[0]} {one}: they can't be compared"
            return [Problem(words[1], message)]
    return []


def _flops(spec: InferSpec, request: GenerationRequest) -> int:
    height, width = video_size(spec, request)
    made = attrs.evolve(rules.spec_of(spec, request), height=height, width=width)
    return infer_work(made, rules.first_step(made, request)).step_flops


def _shown_size(spec: InferSpec, request: GenerationRequest) -> str:
    shown = (request.num_frames or spec.num_frames, *video_size(spec, request), spec.fps)
    for stage in spec.after_decode:
        shown = stage.size_after(*shown)
    frames, height, width, fps = shown
    return f"{frames} frames of {width}x{height} at {fps} per second"


def _ratio(seconds: float, others: float) -> float:
    return seconds / others if others else math.nan
