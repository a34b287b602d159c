"""What `mm generate` is asked for: prompts with their images, or a file of requests. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mm_config.cli import CommandLine, Option, whole_number
from mm_config.schema import Problem, UserError, gathering
from mm_config.specs import GenerationRequest
from mm_config.stored import from_payload, to_payload


def _prompt(text: str) -> str:
    if not text.strip():
        raise UserError("is blank")
    return text


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
SEED = Option(
    "--seed", "Seed of the noise of every video (default: 0).", "N", read=partial(whole_number, least=0)
)
REQUESTS = Option(
    "--requests",
    "In place of prompts, a file with a JSON object on each line: prompt, and whichever of negative_prompt, "
    "seed, image and last_image, from the file's folder.",
    "FILE",
    read=Path,
)
OPTIONS = (PROMPT, NEGATIVE_PROMPT, IMAGE, LAST_IMAGE, SEED, REQUESTS)


def requests_of_line(line: CommandLine) -> tuple[tuple[GenerationRequest, ...], list[Problem]]:
    """The requests of a command line, and what is wrong with them."""
    problems: list[Problem] = []
    shared = {"negative_prompt": line.value(NEGATIVE_PROMPT, None), "seed": line.value(SEED, 0)}
    if line.has(REQUESTS):
        idle = [option.flag for option in (PROMPT, IMAGE, LAST_IMAGE) if line.has(option)]
        problems += [Problem(flag, f"is said by each line of {REQUESTS.flag}; leave it out") for flag in idle]
        with gathering(problems):
            return read_requests(line.value(REQUESTS), shared), problems
        return (), problems
    if not line.has(PROMPT) and all(problem.path != PROMPT.flag for problem in line.problems):
        said = f"is missing; say what the video shows, or give {REQUESTS.flag}"
        problems.append(Problem(PROMPT.flag, said))
    prompts = line.values(PROMPT)
    first, last = (_files(line, option, len(prompts), problems) for option in (IMAGE, LAST_IMAGE))
    return tuple(
        GenerationRequest(prompt=prompt, image=image, last_image=last_image, **shared)
        for prompt, image, last_image in zip(prompts, first, last, strict=True)
    ), problems


def read_requests(file: Path, shared: Mapping[str, Any]) -> tuple[GenerationRequest, ...]:
    """The requests of a file with a JSON object on each line; blank lines are passed over.

    Args:
        file: The file; images are looked up from its folder.
        shared: What lines that don't say it take.

    Raises:
        UserError: It can't be read, or lines are no requests: all of them, each with its number.
    """
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(Problem(REQUESTS.flag, f"{file} can't be read: {why}")) from error
    payload: dict[str, Any] = to_payload(GenerationRequest(prompt="any", **shared))
    defaults = {name: value for name, value in payload["spec"].items() if name != "prompt"}
    found: list[GenerationRequest] = []
    problems: list[Problem] = []
    for number, text in enumerate(lines, 1):
        if text.strip():
            with gathering(problems):
                said = _object(text, file, number)
                found.append(from_payload({**payload, "spec": defaults | said}, f"{file}:{number}"))
    if not problems and not found:
        problems.append(Problem(REQUESTS.flag, f"{file} asks for nothing"))
    if problems:
        raise UserError(problems)
    return tuple(found)


def _object(text: str, file: Path, number: int) -> dict[str, Any]:
    """A line's object, its image files below the file's folder. Raises UserError where it is none."""
    try:
        fields = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        why = f"is no JSON: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(Problem(f"{file}:{number}", why)) from error
    if not isinstance(fields, dict):
        example = 'is no JSON object such as {"prompt": "a red circle moving up"}'
        raise UserError(Problem(f"{file}:{number}", example))
    for name in ("image", "last_image", "video"):
        if isinstance(fields.get(name), str):
            fields[name] = str(file.parent / fields[name])
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("says a key twice")
    return fields


def _files(line: CommandLine, option: Option, prompts: int, problems: list[Problem]) -> Sequence[str | None]:
    """The image file of each prompt; another number of files is added to the problems."""
    files = line.values(option)
    if len(files) in (1, prompts):
        return files * prompts if len(files) == 1 else files
    if files:
        message = f"names {len(files)} files for {prompts} prompts; give one for all, or one for each"
        problems.append(Problem(option.flag, message))
    return (None,) * prompts
