"""What all ranks must have alike before anything is made: spec, packages, data, and the folder of runs."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from mm_config import diff
from mm_config.durable import stage_of
from mm_config.options import RunOptions
from mm_config.schema import Problem, RootSpec, UserError, exact_hash, for_person
from mm_config.stored import from_payload, to_payload
from mm_models.ranks.together import Ranks

_ROOTS = ("mm-train", "mm-infer", "mm-models", "mm-data", "mm-config")
_NAME = re.compile(r"[\w.-]+")
_SEEN_SECONDS = 3.0
"""How long a rank looks for what rank 0 wrote: a file system may show it late."""


def agree_on(spec: RootSpec, ranks: Ranks) -> None:
    """Stops where ranks were started with different specs, or by other versions of packages.

    Raises:
        UserError: One problem for each field that differs from rank 0's, and for each package.
    """
    if ranks.world_size == 1:
        return
    problems: list[Problem] = []
    if len(set(ranks.gather(exact_hash(spec)))) > 1:
        specs = [from_payload(payload) for payload in ranks.gather(to_payload(spec))]
        problems += [
            Problem(
                change.path,
                f"differs between ranks: {for_person(change.old)} on rank 0, "
                f"{for_person(change.new)} on rank {rank}",
            )
            for rank, other in enumerate(specs)
            for change in diff(specs[0], other)
        ]
    problems += differences(versions(), ranks)
    if problems:
        raise UserError(problems)


def require_shared(options: RunOptions, ranks: Ranks) -> None:
    """Stops where the runs folder of a rank is not that of rank 0, which writes a file for the others to see.

    Raises:
        UserError: Ranks don't find the file, all of which are named; or it can't be written.
    """
    if ranks.world_size == 1:
        return
    folder = options.runs_dir.absolute()
    found = ranks.on_first(lambda: str(_token(folder)))
    token = folder / Path(found).name
    blind = [rank for rank, sees in enumerate(ranks.gather(_appears(token))) if not sees]
    ranks.on_first(lambda: Path(found).unlink(missing_ok=True))
    if blind:
        how = options.name_of("runs_dir")
        why = f"{_ranks(blind)} can't see what rank 0 writes into {Path(found).parent}"
        raise UserError(Problem(how, f"{why}; all ranks need one folder on a shared file system"))


def versions() -> dict[str, str]:
    """The versions of Python and of every package that ours need, directly or not, where it is installed;
    of others' extras none."""
    wanted, found = list[str](_ROOTS), dict[str, str]()
    while wanted:
        name = wanted.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = package.version
        lines = (line for line in package.requires or () if name in _ROOTS or "extra ==" not in line)
        needed = {match[0].lower().replace("_", "-") for line in lines if (match := _NAME.match(line))}
        wanted += sorted(needed.difference(found))
    return {"python": platform.python_version(), **dict(sorted(found.items()))}


def differences(mine: Mapping[str, str], ranks: Ranks) -> list[Problem]:
    """A problem for each name under which ranks have different texts."""
    everywhere: list[dict[str, str]] = ranks.gather(dict(mine))
    problems: list[Problem] = []
    for name in dict.fromkeys(name for one in everywhere for name in one):
        holders: dict[str, list[int]] = {}
        for rank, one in enumerate(everywhere):
            holders.setdefault(one.get(name, "not installed"), []).append(rank)
        if len(holders) > 1:
            told = ", ".join(f"{text} on {_ranks(places)}" for text, places in holders.items())
            problems.append(Problem(name, f"differs between ranks: {told}"))
    return problems


def _ranks(places: list[int]) -> str:
    """Ranks in words, neighbours as a range."""
    starts = [place for place in places if place - 1 not in places]
    ends = [place for place in places if place + 1 not in places]
    pairs = zip(starts, ends, strict=True)
    told = ", ".join(str(start) if start == end else f"{start}-{end}" for start, end in pairs)
    return f"rank{'s' if len(places) > 1 else ''} {told}"


def _token(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        token = stage_of(folder / "shared")
        token.touch()
    except OSError as error:
        raise UserError(Problem(str(folder), f"can't be written: {error.strerror or error}")) from error
    return token


def _appears(token: Path) -> bool:
    """Whether a file is in its folder, which is listed: that a name was not there may be remembered."""
    end = time.monotonic() + _SEEN_SECONDS
    while True:
        with suppress(OSError):
            if token.name in os.listdir(token.parent):
                return True
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
