"""Opens weights of any kind: what they are is found in their content, and nothing is read but headers."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config import load as load_spec
from mm_config.schema import Problem, UserError
from mm_config.specs import ModelSpec
from mm_models import checkpoint
from mm_models.naming import first_names
from mm_models.weights import megatron, pickled, safetensors_files, torch_dcp
from mm_models.weights.adapter_names import no_network
from mm_models.weights.names import Dialect
from mm_models.weights.published import (
    Guess,
    bears_our_names,
    guess,
    published,
    published_model,
    published_of,
    recognised,
)
from mm_models.weights.tensors import StoredTensor

Found = tuple[dict[str, StoredTensor], list[str]]


@attrs.frozen
class Weights:
    """A network's tensors on a disk."""

    path: Path
    """The file or folder."""
    layout: str
    """How they lie there, such as `safetensors` or `pipeline stages of torch.save`."""
    dialect: Dialect
    """Whose names they bear."""
    tensors: Mapping[str, StoredTensor]
    """By our names; those that the dialect lacks keep theirs."""
    left_out: tuple[str, ...]
    """What else is stored there: an optimizer's state, numbers, tensors that no computation uses."""
    config: Mapping[str, Any]
    """The configuration that lies beside them; empty for none."""

    @property
    def kind(self) -> str:
        """What `--to` calls it."""
        return "dcp" if self.layout == CHECKPOINT else self.dialect.name

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By our names."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}


CHECKPOINT = "our checkpoint"
_BESIDE = ("optimizer", "opt_param_scheduler", "rng_state")
"""What trainings store beside a network, under these first parts of names."""
_MARKS = (
    *("*.safetensors", "*" + safetensors_files.INDEX_SUFFIX, checkpoint.MANIFEST),
    *("mp_rank_*", "release", megatron.TRACKER, torch_dcp.METADATA),
    *("*" + suffix for suffix in pickled.SUFFIXES),
)
"""What folders with weights hold."""


def open_weights(path: Path) -> Weights:
    """Finds out what lies at a path and opens it.

    Args:
        path: A folder of diffusers, of the original Wan code, of MindSpeed-MM (`release/mp_rank_*`, or a
            distributed checkpoint) or one of our checkpoints; or one file, `.safetensors`, `.pt` or `.pth`,
            or an index of safetensors files.

    Raises:
        UserError: Nothing there is weights of a known network, or they are damaged, or would have to be
            executed.
    """
    layout, (tensors, others) = _read(path)
    found = recognised(tensors)
    if found is None:
        if why := no_network(tensors, path):
            raise UserError(Problem(str(path), why))
        known = " or of ".join(one.about for one in published())
        raise UserError(Problem(str(path), f"no tensor has a name of {known}{_holds(tensors)}"))
    network, dialect, prefix = found
    named: dict[str, StoredTensor] = {}
    left_out = list(others)
    for theirs, tensor in tensors.items():
        parts = theirs.split(".")
        if not theirs.startswith(prefix) or parts[0] in _BESIDE or not network.unused.isdisjoint(parts):
            left_out.append(theirs)
            continue
        name = dialect.ours(theirs.removeprefix(prefix)) or theirs
        if name in named:
            raise UserError(Problem(str(path), f"holds {name} under two names; one of them is {theirs}"))
        named[name] = tensor
    return Weights(path, layout, dialect, named, tuple(left_out), _config(path))


def architecture_of(weights: Weights) -> Guess | None:
    """What shapes and configuration tell of a network; None where tensors that tell it are missing.

    The configuration is the one beside the weights, or that of the run which made them.

    Raises:
        UserError: The configuration is none of a network with these shapes.
    """
    config = weights.config
    if (model := spec_of_run(weights)) is not None:
        config = published_of(model).config(model)
    return _guess(weights, config)


def spec_of_run(weights: Weights) -> ModelSpec | None:
    """The network of the run whose checkpoint this is; None for anything else.

    Raises:
        UserError: The spec of the run can't be read, or its network is another.
    """
    stored = weights.path.absolute().parent.parent / "spec.json"
    if weights.layout != CHECKPOINT or weights.config or not stored.is_file():
        return None
    return published_model(load_spec(stored), str(stored))


def contradictions(found: Guess | None, model: ModelSpec) -> tuple[str, ...]:
    """What a configuration tells otherwise than a spec, where tensors can't tell it.

    With another number of heads every tensor fits and every value that is computed is wrong. Where shapes
    differ they say more, and nothing is returned.
    """
    if found is None or found.spec.parameter_shapes() != model.parameter_shapes():
        return ()
    return tuple(
        f"{name} is {theirs} in the configuration of the weights, {ours} in the spec"
        for name in sorted(found.told)
        if (theirs := getattr(found.spec, name)) != (ours := getattr(model, name))
    )


def open_for(
    names: Collection[str], path: Path, model: ModelSpec | None = None
) -> Mapping[str, StoredTensor]:
    """The tensors at a path by the names of a network.

    Those of published networks are translated; others, and our checkpoints, have their own already.

    Args:
        names: The network's.
        path: As for `open_weights`.
        model: The network's spec, which a configuration beside the weights must not contradict.

    Raises:
        UserError: Nothing there is weights, or they are damaged, or would have to be executed; or they are
            of a network with other settings.
    """
    if bears_our_names(names):
        weights = open_weights(path)
        if model is not None and (differing := contradictions(_guess(weights, weights.config), model)):
            raise UserError(Problem(str(path), message) for message in differing)
        return weights.tensors
    _, (tensors, _) = _read(path)
    if not tensors:
        raise UserError(Problem(str(path), f"holds no weights{_holds(tensors)}"))
    return {name: tensor for name, tensor in tensors.items() if name.split(".")[0] not in _BESIDE}


def read_group(folder: Path, group: str) -> dict[str, StoredTensor]:
    """The tensors of a group of one of our checkpoints, such as `model`, by name.

    Raises:
        UserError: Files are missing or cut short (their content is not hashed), or the group is missing.
    """
    if damage := checkpoint.verify(folder, hashed=False):
        raise UserError(Problem(str(folder), f"is damaged: {'; '.join(damage[:10])}"))
    if not (folder / group).is_dir():
        raise UserError(Problem(str(folder), f"holds no {group!r}"))
    return safetensors_files.read_files(sorted((folder / group).glob("*.safetensors")))


def _guess(weights: Weights, config: Mapping[str, Any]) -> Guess | None:
    try:
        return guess(weights.shapes, config)
    except UserError as error:
        what = "in the configuration of the weights"
        raise UserError(
            Problem(str(weights.path), f"{what}, {problem}") for problem in error.problems
        ) from error


def _holds(tensors: Collection[str]) -> str:
    """What was found instead, for an error."""
    if not tensors:
        return "; it holds no tensors"
    more = f", and {len(tensors) - 3} more" if len(tensors) > 3 else ""
    return f"; it holds {', '.join(list(tensors)[:3])}{more}"


def _read(path: Path) -> tuple[str, Found]:
    if path.is_file():
        return _read_file(path)
    if not path.is_dir():
        raise UserError(Problem(str(path), "no such file or folder"))
    if (path / checkpoint.MANIFEST).is_file():
        return CHECKPOINT, (read_group(path, "model"), [])
    if any(path.glob("*.safetensors")) or any(path.glob("*" + safetensors_files.INDEX_SUFFIX)):
        return "safetensors", (safetensors_files.read_folder(path), [])
    inner = megatron.iteration_folder(path)
    if megatron.is_megatron(inner):
        return "mp_rank folders of torch.save", megatron.read_megatron(inner)
    if (inner / torch_dcp.METADATA).is_file():
        return "torch_dcp", torch_dcp.read_torch_dcp(inner)
    files = sorted(file for file in path.iterdir() if file.suffix in pickled.SUFFIXES)
    if len(files) == 1:
        return _read_file(files[0])
    raise UserError(Problem(str(path), f"holds no weights that are known{_advice(path, files)}"))


def _read_file(path: Path) -> tuple[str, Found]:
    if path.name.endswith(safetensors_files.INDEX_SUFFIX):
        return "safetensors", (safetensors_files.read_index(path), [])
    if path.suffix == ".safetensors":
        return "safetensors", (safetensors_files.read_files([path]), [])
    if path.suffix in pickled.SUFFIXES:
        return "torch.save", pickled.read_pickled(path)
    raise UserError(Problem(str(path), "expected a folder, .safetensors, its index, .pt or .pth"))


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
    """Whether the names in it are such as `_read` looks for; a folder that can't be listed has none."""
    return any(any(folder.glob(mark)) for mark in _MARKS)


def _config(path: Path) -> Mapping[str, Any]:
    """What lies beside the weights; heads and epsilon are not in them."""
    folder = path if path.is_dir() else path.parent
    try:
        if (folder / checkpoint.MANIFEST).is_file():
            read = checkpoint.read_state(folder).get("config")
        elif (folder / "config.json").is_file():
            read = json.loads((folder / "config.json").read_text("utf-8"))
        else:
            return {}
    except (OSError, ValueError) as error:
        raise UserError(Problem(str(folder), f"its configuration can't be read: {error}")) from error
    return read if isinstance(read, dict) else {}
