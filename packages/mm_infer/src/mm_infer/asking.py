"""What `mm generate` is asked for: prompts, files and settings, or a file of prompts. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from mm_config.cli import CommandLine, Option, whole_number
from mm_config.schema import Problem, UserError, gathering
from mm_config.specs import GenerationRequest, Resolution, Solver
from mm_infer.prompts import Asked, read_prompts


def _prompt(text: str) -> str:
    if not text.strip():
        raise UserError("is blank")
    return text


def _number(text: str, least: float = -math.inf, above: float = -math.inf, most: float = math.inf) -> float:
    bounds = {"at least": least, "above": above, "at most": most}
    said = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (least <= value <= most and value > above and math.isfinite(value)):
        raise UserError(f"expected a number {said}, got {text!r}")
    return value


def _width_and_height(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not all(re.fullmatch("[1-9][0-9]{0,4}", side) for side in (width, height)):
        raise UserError(f"expected WIDTHxHEIGHT in pixels such as 832x480, got {text!r}")
    return int(width), int(height)


PROMPT = Option(
    "--prompt",
    "What the video shows. Give it again for one more video.",
    "TEXT",
    repeatable=True,
    read=_prompt,
)
NEGATIVE_PROMPT = Option(
    "--negative-prompt",
    'What no video should show; "" is nothing (default: the spec\'s).',
    "TEXT",
    may_be_empty=True,
)
IMAGE = Option(
    "--image",
    "Image file of the first frame, for networks that are given one: once for all prompts, or once for each, "
    "in their order.",
    "FILE",
    repeatable=True,
)
LAST_IMAGE = Option(
    "--last-image",
    "Image file of the last frame, for networks that are given both; as --image.",
    "FILE",
    repeatable=True,
)
VIDEO = Option(
    "--video",
    "Video file whose first frames are made into another video, with --strength; as --image.",
    "FILE",
    repeatable=True,
)
STRENGTH = Option(
    "--strength",
    "Share of the denoising steps that a given video goes through, up to 1, which keeps nothing of it.",
    "X",
    read=partial(_number, above=0, most=1),
)
SEED = Option(
    "--seed",
    "Seed of the noise (default: 0). Give it again to make each video once more.",
    "N",
    repeatable=True,
    read=partial(whole_number, least=0),
)
FRAMES = Option("--frames", "Frames of every video (default: the spec's).", "N", read=whole_number)
SIZE = Option(
    "--size", "Width and height of every video (default: the spec's).", "WIDTHxHEIGHT", read=_width_and_height
)
RESOLUTION = Option(
    "--resolution",
    "Area of every video, in place of --size, at the spec's aspect ratio or --aspect-ratio.",
    "AREA",
    choices=tuple(one.value for one in Resolution),
    read=Resolution,
)
ASPECT_RATIO = Option(
    "--aspect-ratio",
    "Width to height of every video, such as 16:9, in place of --size, at the spec's area or --resolution.",
    "W:H",
)
STEPS = Option("--steps", "Denoising steps, where spec.requests_may_set has steps.", "N", read=whole_number)
SOLVER = Option(
    "--solver",
    "The integrator, where spec.requests_may_set has sampler.",
    "NAME",
    choices=tuple(one.value for one in Solver),
    read=Solver,
)
SHIFT = Option(
    "--shift",
    "Shift of the noise levels, where spec.requests_may_set has sampler.",
    "X",
    read=partial(_number, least=0.01),
)
GUIDANCE = Option(
    "--guidance",
    "Guidance of the high-noise expert or the single network, where spec.requests_may_set has sampler.",
    "X",
    read=partial(_number, least=1),
)
GUIDANCE_LOW_NOISE = Option(
    "--guidance-low-noise",
    "Guidance of the low-noise expert, where spec.requests_may_set has sampler.",
    "X",
    read=partial(_number, least=1),
)
PROMPTS = Option(
    "--prompts",
    "In place of --prompt, a file that asks for many videos: .txt with a prompt in each line; .jsonl, .csv "
    "or .parquet with prompt and whichever other fields of a request a line sets, such as seed, num_frames "
    "or image, from the file's folder. A line without a seed has one that follows from --seed and its place.",
    "FILE",
    read=Path,
)
SHARED = {
    NEGATIVE_PROMPT: "negative_prompt",
    STRENGTH: "strength",
    FRAMES: "num_frames",
    RESOLUTION: "resolution",
    ASPECT_RATIO: "aspect_ratio",
    STEPS: "steps",
    SOLVER: "solver",
    SHIFT: "shift",
    GUIDANCE: "guidance_high_noise",
    GUIDANCE_LOW_NOISE: "guidance_low_noise",
}
"""Options that say one field of every request."""
FILES = {IMAGE: "image", LAST_IMAGE: "last_image", VIDEO: "video"}
"""Options that name a file for all requests, or one for each."""
OPTIONS = (PROMPT, NEGATIVE_PROMPT, *FILES, STRENGTH, SEED, FRAMES, SIZE, *tuple(SHARED)[3:], PROMPTS)


def shared_fields(line: CommandLine) -> dict[str, Any]:
    """The fields that a command line says for all of its requests."""
    said = {name: line.value(option) for option, name in SHARED.items() if line.has(option)}
    if line.has(SIZE):
        said["width"], said["height"] = line.value(SIZE)
    return said


def asked_in_file(line: CommandLine) -> tuple[tuple[Asked, ...], list[Problem]]:
    """What the file of a command line asks for, and what is wrong with the line beside it."""
    idle = [option.flag for option in (PROMPT, *FILES) if line.has(option)]
    problems = [Problem(flag, f"is said by each line of {PROMPTS.flag}; leave it out") for flag in idle]
    asked: tuple[Asked, ...] = ()
    with gathering(problems):
        asked = read_prompts(line.value(PROMPTS), shared_fields(line), line.values(SEED) or (0,))
    return asked, problems


def requests_of_line(
    line: CommandLine, beside: Sequence[GenerationRequest] = ()
) -> tuple[tuple[GenerationRequest, ...], list[Problem]]:
    """The requests of a command line, each with each seed, and what is wrong with them.

    Args:
        line: The command line.
        beside: What stands beside its target, which a line without prompts asks for again.
    """
    if line.has(PROMPTS):
        in_file, problems = asked_in_file(line)
        problems += [problem for one in in_file for problem in one.problems]
        return tuple(request for one in in_file for request in one.requests), problems
    problems = []
    asked = [GenerationRequest(prompt=prompt) for prompt in line.values(PROMPT)]
    if not line.has(PROMPT) and all(problem.path != PROMPT.flag for problem in line.problems):
        asked = list(beside)
        if not asked:
            said_how = f"is missing; say what the video shows, or give {PROMPTS.flag}"
            problems.append(Problem(PROMPT.flag, said_how))
    said = shared_fields(line)
    files = {
        name: _files(line, option, len(asked), problems) for option, name in FILES.items() if line.has(option)
    }
    return tuple(
        attrs.evolve(one, **said, **seed, **{name: given[index] for name, given in files.items()})
        for index, one in enumerate(asked)
        for seed in ([{"seed": seed} for seed in line.values(SEED)] or [{}])
    ), problems


def _files(line: CommandLine, option: Option, prompts: int, problems: list[Problem]) -> Sequence[str | None]:
    """The image file of each prompt; another number of files is added to the problems."""
    files = line.values(option)
    if len(files) in (1, prompts):
        return files * prompts if len(files) == 1 else files
    if files:
        message = f"names {len(files)} files for {prompts} prompts; give one for all, or one for each"
        problems.append(Problem(option.flag, message))
    return (None,) * prompts
