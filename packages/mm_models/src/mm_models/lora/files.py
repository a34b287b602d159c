"""Reads adapters: safetensors of any known key style, and our checkpoints of trained ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from mm_config import load as load_spec
from mm_config.schema import Problem, UserError
from mm_config.stored import read_json
from mm_models import checkpoint
from mm_models.lora import configuration
from mm_models.lora.adapter import Adapter, StoredAdapters
from mm_models.lora.configuration import Configuration
from mm_models.lora.keys import Key, Kind, our_names, parse
from mm_models.lora.layers import Entry, adapter_of
from mm_models.naming import first_names
from mm_models.weights.adapter_names import EXECUTED, not_opened, refusal
from mm_models.weights.differences import SHOWN
from mm_models.weights.layouts import read_checkpoint
from mm_models.weights.published import generating
from mm_models.weights.safetensors_files import read_files
from mm_models.weights.tensors import StoredTensor

METADATA = "lora_adapter_metadata"
"""Under this name diffusers stores the configuration in the file's own metadata."""
NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""Files that diffusers and PEFT write into a folder."""


def read_adapters(path: Path) -> StoredAdapters:
    """Reads the adapters of a file or folder into memory, as they are stored.

    Alpha is what the file's `alpha` keys say, else the configuration (adapter_config.json beside the file,
    diffusers' metadata in it, or the spec of the run that made the checkpoint), else the rank: so tools do
    whose files tell none. PEFT's files always need their configuration.

    Args:
        path: A `.safetensors` file, a folder with one, or one of our checkpoints.

    Raises:
        UserError: There is no adapter, a half is missing, shapes or ranks don't fit each other, values are
            not finite, the file is damaged, or asks for what is not carried out.
    """
    layout, found, metadata = _open(path)
    where = str(path)
    keys = {key: parse(key) for key in found}
    if why := refusal(keys):
        raise UserError(Problem(where, why))
    if not any(keys.values()):
        raise UserError(Problem(where, f"holds no adapter: its tensors are {first_names(keys, SHOWN)}"))
    if strangers := [key for key, parsed in keys.items() if parsed is None]:
        why = f"no adapter has keys such as {first_names(strangers, SHOWN)}"
        raise UserError(Problem(where, f"holds more than low-rank matrices: {why}"))
    parsed = {key: one for key, one in keys.items() if one is not None}
    style, entries = _entries(parsed, found, where)
    style = "dcp" if layout == "dcp" else style
    config_of = _configurations(path, style, metadata)
    experts: dict[str, Adapter] = {}
    problems: list[Problem] = []
    for expert in sorted({entry.expert for entry in entries}):
        own = [entry for entry in entries if entry.expert == expert]
        try:
            experts[expert] = adapter_of(own, config_of(expert), where)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return StoredAdapters(path, style, experts)


def holds_adapter(path: Path) -> bool:
    """Whether a path's tensors bear names of an adapter; false for what can't be read."""
    try:
        keys = [parse(key) for key in _open(path)[1]]
    except UserError:
        return False
    return any(key is not None and key.kind != "alpha" for key in keys)


def _open(path: Path) -> tuple[str, dict[str, StoredTensor], Mapping[str, str]]:
    """The layout, the tensors, and the metadata of the file."""
    if checkpoint.holds(checkpoint.whole_of(path)):
        return "dcp", read_checkpoint(path), {}
    file = _file_of(path)
    tensors = read_files([file])
    with safe_open(file, framework="pt") as opened:
        return "file", tensors, opened.metadata() or {}


def _file_of(path: Path) -> Path:
    if why := not_opened(path):
        raise UserError(Problem(str(path), why))
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(Problem(str(path), "no such file or folder"))
    found = sorted(path.glob("*.safetensors"))
    usual = [file for file in found if file.name in NAMES]
    if len(usual or found) == 1:
        return (usual or found)[0]
    if found:
        names = ", ".join(file.name for file in found[:SHOWN])
        raise UserError(Problem(str(path), f"holds {len(found)} safetensors files; name one of {names}"))
    if folders := sorted(file.parent.name for file in path.glob("*/*.safetensors")):
        names = ", ".join(list(dict.fromkeys(folders))[:SHOWN])
        message = f"holds no safetensors file, its folders do: name one of {names}"
        raise UserError(Problem(str(path), f'{message}, in a spec such as subfolder="{folders[0]}"'))
    executed = sorted(file.name for file in path.iterdir() if file.suffix in EXECUTED)
    advice = f"; {', '.join(executed[:SHOWN])} can hold code and is not opened" if executed else ""
    raise UserError(Problem(str(path), f"holds no safetensors file{advice}"))


def _entries(
    keys: Mapping[str, Key], found: Mapping[str, StoredTensor], where: str
) -> tuple[str, list[Entry]]:
    """The file's style, and its tensors under our names."""
    styles = sorted({key.style or "no prefix" for key in keys.values()})
    if len(styles) > 1:
        raise UserError(Problem(where, f"mixes keys of several styles: {', '.join(styles)}"))
    flattened = styles == ["kohya"]
    names = our_names({key.name for key in keys.values()}, flattened=flattened)
    if unknown := [theirs for theirs, key in keys.items() if key.name not in names]:
        known = " and ".join(network.about for network in generating())
        what = f"flat names are read for {known} alone, which has none of"
        raise UserError(Problem(where, f"{what} {first_names(unknown, SHOWN)}"))
    entries = [
        Entry(theirs, key.name, names[key.name], key.expert, key.kind, found[theirs])
        for theirs, key in keys.items()
    ]
    places: dict[tuple[str, str, Kind], str] = {}
    for entry in entries:
        other = places.setdefault((entry.expert, entry.name, entry.kind), entry.theirs)
        if other != entry.theirs:
            raise UserError(Problem(where, f"holds two tensors for one: {other} and {entry.theirs}"))
    if styles != ["no prefix"]:
        return styles[0], entries
    return ("diffusers" if all(theirs == ours for theirs, ours in names.items()) else "wan"), entries


def _configurations(
    path: Path, style: str, metadata: Mapping[str, str]
) -> Callable[[str], Configuration | None]:
    """Finds the configuration of an expert's adapter."""
    match style:
        case "dcp":
            trained = _configuration_of_training(path)
            return lambda expert: trained
        case "peft":
            own = _configuration_of_peft(path)
            return lambda expert: own
        case "diffusers" if METADATA in metadata:
            stored = _json(metadata[METADATA], f"{path} ({METADATA})")
            return lambda expert: _of_expert(stored, expert, f"{path} ({METADATA})")
    return lambda expert: None


def _of_expert(stored: Any, expert: str, where: str) -> Configuration:
    """The fields under an expert's name, or those under none."""
    if not isinstance(stored, dict):
        return configuration.parse(stored, where)
    prefix = f"{expert}."
    own = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
    plain = {name: value for name, value in stored.items() if "." not in name}
    if not own and not plain:
        raise UserError(Problem(where, f"says nothing of {expert}, whose matrices it holds"))
    return configuration.parse(own or plain, where)


def _configuration_of_peft(path: Path) -> Configuration:
    """PEFT's file beside the matrices."""
    file = (path if path.is_dir() else path.parent) / configuration.FILE
    if not file.is_file():
        raise UserError(Problem(str(path), f"{configuration.FILE}, which says alpha, is missing beside it"))
    return configuration.parse(read_json(file), str(file))


def _configuration_of_training(path: Path) -> Configuration:
    """What the spec of the run says whose checkpoint this is."""
    stored = checkpoint.whole_of(path).absolute().parent.parent / "spec.json"
    lora = getattr(load_spec(stored), "lora", None) if stored.is_file() else None
    if lora is None:
        raise UserError(Problem(str(path), f"{stored}, which says alpha, is missing or trained no adapters"))
    return Configuration(lora.rank, lora.alpha)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(Problem(where, f"is no JSON: {error}")) from error
