"""Items of a job: each a folder with a video, its request and its result, there whole or not at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import attrs

from mm_config.console import aside
from mm_config.durable import sha256_of, stages
from mm_config.runs import utc_now
from mm_config.schema import Problem, UserError
from mm_config.specs import GenerationRequest
from mm_config.stored import read_json, to_payload, write_json
from mm_infer.naming import slug

VIDEO, REQUEST, RESULT = "video.mp4", "request.json", "result.json"
"""Files of an item's folder."""
FAILED = "failed"
"""Folder of a job with a JSON file for each item that could not be made."""


@attrs.frozen
class Item:
    """A video of a job."""

    name: str
    """Of its folder."""
    request: GenerationRequest
    """What is asked for."""
    place: str
    """Where it is asked for, as errors and pages name it."""
    made_of: str = ""
    """All that its content follows from, once that is known: what is made of the same is made once."""


def item_name(number: int, request: GenerationRequest) -> str:
    """The folder of what a line asks for: `0007-a-red-circle-moving-up-42`."""
    return f"{number:04}-{slug(request.prompt)}-{request.seed}"


def finished(out: Path) -> dict[str, Path]:
    """The folders of finished items by what they are made of; damaged ones are told and not counted."""
    found: dict[str, Path] = {}
    if not out.is_dir():
        return found
    unfinished = set(stages(out))
    for folder in sorted(out.iterdir()):
        if folder not in unfinished and (folder / RESULT).is_file():
            try:
                found.setdefault(read_item(folder)["made_of"], folder)
            except UserError as error:
                aside(f"{folder}: is no whole item, so it does not count as made: {error}")
    return found


def read_item(folder: Path) -> dict[str, Any]:
    """The result of an item whose video is what it was.

    Raises:
        UserError: It is not, or the folder holds no item.
    """
    result = read_json(folder / RESULT, {"made_of": str, "video": {"sha256": str}})
    try:
        digest = sha256_of(folder / VIDEO)
    except OSError as error:
        raise UserError(Problem(str(folder / VIDEO), f"can't be read: {error.strerror}")) from error
    if digest != result["video"]["sha256"]:
        raise UserError(Problem(str(folder / VIDEO), "is damaged: it is not what was written"))
    return result


def free_folder(out: Path, item: Item, taken: Collection[Path] = ()) -> Path:
    """Where an item is put: another one of its name, made of something else, keeps its folder."""
    names = (item.name if number == 1 else f"{item.name}-{number}" for number in count(1))
    return next(folder for name in names if not (folder := out / name).exists() and folder not in taken)


def write_item(stage: Path, item: Item, result: Mapping[str, Any]) -> None:
    """Writes what stands beside a video, into its folder before that takes its place."""
    write_json(stage / REQUEST, to_payload(item.request))
    write_json(stage / RESULT, {**result, "made_of": item.made_of, "finished_at": utc_now()})


@attrs.frozen
class Failure:
    """A video of a job that could not be made."""

    name: str
    """Of the folder that it would have; of a line that can't be read, the line's number."""
    place: str
    """Where it is asked for."""
    request: GenerationRequest | None
    """What is asked for; None where that can't be read."""
    problems: tuple[Problem, ...]
    """Why it could not be made."""


def write_failure(out: Path, failure: Failure) -> None:
    """Records why a video could not be made, until it is."""
    (out / FAILED).mkdir(parents=True, exist_ok=True)
    told = {
        "place": failure.place,
        "request": None if failure.request is None else to_payload(failure.request),
        "problems": [str(problem) for problem in failure.problems],
        "failed_at": utc_now(),
    }
    write_json(out / FAILED / f"{failure.name}.json", told)


def forget_failures(out: Path, names: Iterable[str]) -> None:
    """Removes the records of earlier failures."""
    for name in names:
        (out / FAILED / f"{name}.json").unlink(missing_ok=True)


def failures(out: Path) -> Iterator[tuple[str, list[str]]]:
    """Names of the videos that could not be made, with why."""
    for file in sorted((out / FAILED).glob("*.json")):
        yield file.stem, read_json(file, {"problems": [str]})["problems"]
