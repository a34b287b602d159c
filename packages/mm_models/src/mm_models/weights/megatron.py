"""MindSpeed-MM's folders of `mp_rank_*`, one file per pipeline stage, joined to one network.

A stage's blocks are numbered from 0 in each of its parts. What MindSpeed-MM's converter writes is known from
its public code as remembered, not from a file at hand: parts whose numbers go on from one stage to the next
are read too, and told apart by the numbers themselves.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from mm_config.durable import read_bytes
from mm_config.schema import Problem, UserError
from mm_models.weights.pickled import flat, load_payload
from mm_models.weights.tensors import StoredTensor

TRACKER = "latest_checkpointed_iteration.txt"
FILE = "model_optim_rng.pt"
_MAX_TRACKER_BYTES = 2**16
_RANK = re.compile(r"mp_rank_(\d+)(?:_(\d+))?")
_BLOCK = re.compile(r"(.*?\bblocks\.)(\d{1,9})(\..*)")
Part = dict[str, StoredTensor]


def iteration_folder(folder: Path) -> Path:
    """The folder of the iteration that the tracker file names, of `release`, or the folder itself.

    Raises:
        UserError: The tracker names no iteration, or a folder that is not there.
    """
    tracker = folder / TRACKER
    if not tracker.is_file():
        return folder / "release" if (folder / "release").is_dir() else folder
    try:
        word = read_bytes(tracker, _MAX_TRACKER_BYTES).decode("utf-8", "replace").strip()
    except OSError as error:
        raise UserError(Problem(str(tracker), f"can't be read: {error.strerror}")) from error
    if word != "release" and not re.fullmatch(r"[0-9]{1,18}", word):
        message = f"expected 'release' or the number of an iteration, got {word[:40]!r}"
        raise UserError(Problem(str(tracker), message))
    named = folder / ("release" if word == "release" else f"iter_{int(word):07}")
    if not named.is_dir():
        raise UserError(Problem(str(tracker), f"names {word!r}, but {named} is no folder"))
    return named


def is_megatron(folder: Path) -> bool:
    """Whether a folder holds `mp_rank_*` folders."""
    return any(_RANK.fullmatch(path.name) for path in folder.glob("mp_rank_*"))


def read_megatron(folder: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors of all stages under the names of one network, and what else the files hold.

    Raises:
        UserError: Files are missing or can't be read, tensors are split between tensor-parallel ranks, or
            stages hold different values of one tensor.
    """
    ranks: dict[int, Path] = {}
    for path in sorted(folder.glob("mp_rank_*")):
        if (found := _RANK.fullmatch(path.name)) is None:
            continue
        if int(found[1]):
            raise UserError(
                Problem(str(path), "tensor-parallel parts of Wan are not supported; make one of them")
            )
        ranks[int(found[2] or 0)] = path / FILE
    problems = [Problem(str(file), "is missing") for file in ranks.values() if not file.is_file()]
    if count := max(ranks) + 1 - len(ranks):
        absent = list(islice((str(stage) for stage in range(max(ranks)) if stage not in ranks), 10))
        more = f" and {count - 10} more" if count > 10 else ""
        message = f"has no part of pipeline stage {', '.join(absent)}{more}"
        problems.append(Problem(str(folder), message))
    if problems:
        raise UserError(problems)
    parts: list[tuple[int, int, Part]] = []
    others: list[str] = []
    for stage, file in sorted(ranks.items()):
        found_parts, rest = _parts(file)
        parts += [(chunk, stage, tensors) for chunk, tensors in found_parts]
        others += rest
    # Virtual stages: all first chunks come before all second ones.
    return _joined(folder, [part for *_, part in sorted(parts, key=lambda part: part[:2])]), others


def _parts(file: Path) -> tuple[list[tuple[int, Part]], list[str]]:
    """The network's tensors of a file by virtual stage, and the names of everything else."""
    payload: Any = load_payload(file)
    keys = list(payload) if isinstance(payload, dict) else []
    models = [str(key) for key in keys if re.fullmatch(r"model\d*", str(key))]
    if not models:
        raise UserError(
            Problem(str(file), f"holds no 'model'; it holds {', '.join(map(str, keys[:10])) or 'nothing'}")
        )
    others = [str(key) for key in keys if str(key) not in models]
    parts = []
    for model in models:
        tensors, rest = flat(payload[model], file)
        others += rest
        parts.append((int(model.removeprefix("model") or 0), tensors))
    return parts, others


def _joined(folder: Path, parts: list[Part]) -> Part:
    numbers = [{int(found[2]) for name in part if (found := _BLOCK.fullmatch(name))} for part in parts]
    continued = len(set().union(*numbers)) == sum(map(len, numbers))
    joined: Part = {}
    first = 0
    for part, blocks in zip(parts, numbers, strict=True):
        for name, tensor in part.items():
            found = None if continued else _BLOCK.fullmatch(name)
            whole = f"{found[1]}{first + int(found[2])}{found[3]}" if found else name
            if whole in joined and not torch.equal(joined[whole].read(), tensor.read()):
                raise UserError(Problem(str(folder), f"pipeline stages hold different values of {whole}"))
            joined[whole] = tensor
        first += max(blocks, default=-1) + 1
    return joined
