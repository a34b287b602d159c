"""What lies at a path: which layout of weights, and its tensors under the names that they bear there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mm_config.schema import Problem, UserError, concerning
from mm_config.stored import from_payload, read_json
from mm_models import checkpoint
from mm_models.naming import first_names
from mm_models.weights import indexed, megatron, pickled, safetensors_files, torch_dcp
from mm_models.weights.indexed import Found
from mm_models.weights.tensors import StoredTensor

CHECKPOINT = "our checkpoint"
_MARKS = (
    *("*.safetensors", "*.safetensors.index*.json", "*.bin.index*.json", checkpoint.MANIFEST),
    *("mp_rank_*", "release", megatron.TRACKER, torch_dcp.METADATA),
    *("*" + suffix for suffix in pickled.SUFFIXES),
)
"""What folders with weights hold."""


def read(path: Path) -> tuple[str, Found]:
    """How weights lie at a path, their tensors, and the names of what else is there.

    Raises:
        UserError: Nothing there is weights, or they are damaged, or would have to be executed.
    """
    if checkpoint.whole_of(path) != path:
        return CHECKPOINT, (read_checkpoint(path), [])
    for whole in path.absolute().parents[:2]:
        if checkpoint.lists(whole, path):
            message = f"is a part of the checkpoint {whole}, and only whole ones are checked; name that"
            raise UserError(Problem(str(path), message))
    if path.is_file():
        return _read_file(path)
    if not path.is_dir():
        raise UserError(Problem(str(path), "no such file or folder"))
    if checkpoint.holds(path):
        return CHECKPOINT, (read_checkpoint(path), [])
    if indexed.holds(path, ".safetensors"):
        return "safetensors", indexed.read_folder(path, ".safetensors")
    inner = megatron.iteration_folder(path)
    if megatron.is_megatron(inner):
        return "mp_rank folders of torch.save", megatron.read_megatron(inner)
    if (inner / torch_dcp.METADATA).is_file():
        return "torch_dcp", torch_dcp.read_torch_dcp(inner)
    if any(path.glob("*.bin.index*.json")):
        return "torch.save", indexed.read_folder(path, ".bin")
    files = sorted(file for file in path.iterdir() if file.suffix in pickled.SUFFIXES)
    if len(files) == 1:
        return _read_file(files[0])
    raise UserError(Problem(str(path), f"holds no weights that are known{_advice(path, files)}"))


def read_checkpoint(path: Path) -> dict[str, StoredTensor]:
    """The network of one of our checkpoints, by name.

    Args:
        path: The checkpoint, or `average` in it: the moving average of what was trained, with the weights of
            what was frozen.

    Raises:
        UserError: As `read_group`.
    """
    whole = checkpoint.whole_of(path)
    weights = read_group(whole, "model")
    return weights if whole == path else {**weights, **read_group(whole, path.name)}


def read_group(folder: Path, group: str) -> dict[str, StoredTensor]:
    """The tensors of a group of one of our checkpoints, such as `model`, by name.

    Raises:
        UserError: Files are missing or are not those that were written, the checkpoint is another's, or has
            no such group. What values are is checked when they are read.
    """
    blocks = checkpoint.require_group(folder, group)
    if not (folder / group).is_dir():
        raise UserError(Problem(str(folder), f"holds no {group!r}"))
    return safetensors_files.read_files(sorted((folder / group).glob("*.safetensors")), blocks)


def holdings(tensors: Collection[str]) -> str:
    """What was found instead of weights, for an error."""
    if not tensors:
        return "; it holds no tensors"
    more = f", and {len(tensors) - 3} more" if len(tensors) > 3 else ""
    return f"; it holds {', '.join(list(tensors)[:3])}{more}"


def configuration(path: Path) -> Mapping[str, Any]:
    """`config.json` beside weights, or what a conversion wrote into our checkpoint; empty for none.

    Raises:
        UserError: It can't be read.
    """
    folder = path if path.is_dir() else path.parent
    if checkpoint.holds(whole := checkpoint.whole_of(folder)):
        found = _state(whole).get("config")
    elif (folder / "config.json").is_file():
        found = _json(folder / "config.json", folder)
    else:
        return {}
    return found if isinstance(found, dict) else {}


def stored_spec(path: Path) -> Any:
    """The spec of the training that wrote a checkpoint of ours; None for anything else.

    Raises:
        UserError: It can't be read.
    """
    whole = checkpoint.whole_of(path)
    payload = _state(whole).get("spec") if checkpoint.holds(whole) else None
    if payload is None:
        return None
    with concerning(str(whole / checkpoint.STATE)):
        return from_payload(payload)


def _state(folder: Path) -> dict[str, Any]:
    found = _json(folder / checkpoint.STATE, folder)
    return found if isinstance(found, dict) else {}


def _json(file: Path, folder: Path) -> Any:
    try:
        return read_json(file)
    except UserError as error:
        raise UserError(Problem(str(folder), f"its configuration can't be read: {error}")) from error


def _read_file(path: Path) -> tuple[str, Found]:
    if indexed.is_index(path):
        return "safetensors" if ".safetensors." in path.name else "torch.save", indexed.read_index(path)
    if path.suffix == ".safetensors":
        return "safetensors", indexed.read_one(path)
    if path.suffix in pickled.SUFFIXES:
        return "torch.save", indexed.read_one(path)
    raise UserError(Problem(str(path), "expected a folder, .safetensors, its index, .pt, .pth or .bin"))


def _advice(path: Path, files: list[Path]) -> str:
    if files:
        return f"; name one of {first_names(path.name for path in files)}"
    if newest := _newest_checkpoint(path) or _newest_checkpoint(path / "checkpoints"):
        return f"; name a checkpoint, the newest is {newest}"
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and _may_hold_weights(folder))
    return f"; those of its folders {first_names(path.name for path in folders)} may" if folders else ""


def _newest_checkpoint(folder: Path) -> Path | None:
    """The one of the last step; whether it is intact is found when it is read."""
    steps = {
        int(step): found.parent
        for found in folder.glob(f"step-*/{checkpoint.MANIFEST}")
        if (step := found.parent.name.removeprefix("step-")).isdecimal()
    }
    return steps[max(steps)] if steps else None


def _may_hold_weights(folder: Path) -> bool:
    """Whether the names in it are such as `read` looks for; a folder that can't be listed has none."""
    return any(any(folder.glob(mark)) for mark in _MARKS)
