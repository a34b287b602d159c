"""What weights are as an input: the files that are loaded of them, by name, size and sha256."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_config.content import (
    Input,
    Part,
    digest_of_parts,
    parts_input,
    pinned,
    printable,
    sha256_of_files,
)
from mm_config.running import taken_from, trained_input
from mm_config.schema import UserError, tag_of
from mm_config.specs import RandomWeights, ReleasedWeights, SavedWeights, Umt5TextEncoderSpec, Weights
from mm_config.stored import read_json
from mm_models import checkpoint
from mm_models.releases import OURS, located, tokenizer_places
from mm_models.weights import megatron, torch_dcp
from mm_models.weights.pickled import SUFFIXES

if TYPE_CHECKING:
    from mm_config.options import RunOptions

_CONFIGURATIONS = ("config.json", "adapter_config.json")
_OF_TOKENIZERS = (".json", ".model", ".txt")


def weights_input(
    weights: Weights, found: Path | RandomWeights, contents_dir: Path, path: str
) -> Input | None:
    """What a network's weights or an adapter are; None where they are drawn, which the spec says whole.

    Weights of a training are what their run was made of; of a run that didn't record that, their files.

    Args:
        weights: What the spec says.
        found: Where `resolve_weights` found them.
        contents_dir: Where the files' digests are kept, `RunOptions.contents_dir`.
        path: Canonical path of the field.

    Raises:
        UserError: The spec says which digest they must have, and it is another.
    """
    if isinstance(found, RandomWeights):
        return None
    if isinstance(weights, ReleasedWeights):
        return _released(weights, found, loaded_files(found), contents_dir, path)
    if isinstance(weights, SavedWeights):
        # A result made of a checkpoint on the way is none made of the run's end.
        return Input(digest=weights.digest, kind=tag_of(weights), pinned=True, details=taken_from(found))
    return trained_input(found) or parts_input(
        file_parts(found, loaded_files(found)),
        contents_dir,
        kind=tag_of(weights),
        details=taken_from(found),
    )


def encoder_inputs(encoders: Mapping[str, Any], options: RunOptions) -> dict[str, Input]:
    """What the released weights of encoders are, by the canonical path of the field; those that are here.

    Args:
        encoders: Their specs by canonical path; None for one that is not there.
        options: Where releases and digests are.

    Raises:
        UserError: A spec says which digest its weights must have, and it is another.
    """
    found: dict[str, Input] = {}
    for path, spec in encoders.items():
        field, weights = f"{path}.weights", getattr(spec, "weights", None)
        if not isinstance(weights, ReleasedWeights):
            continue
        try:
            place = located(weights, options.locations, field)
        except UserError:
            continue  # Whoever needs it says so; features that were made before need no encoder.
        ours = type(spec) in OURS
        files = _encoder_files(spec, place) if ours else _visible(place)
        found[field] = _released(weights, place, files, options.contents_dir, field)
    return found


def files_digest(path: Path) -> str:
    """The digest of the files that are loaded of a network's weights, whatever names or made them."""
    return digest_of_parts(file_parts(path, loaded_files(path)))


def loaded_files(path: Path) -> list[Path]:
    """The files that are read of a network's weights or of an adapter, with the configuration beside them."""
    if path.is_file():
        return [*_with_indexed_files(path), *_beside(path.parent)]
    if checkpoint.holds(whole := checkpoint.whole_of(path)):
        groups = ("model",) if whole == path else ("model", path.name)
        return [file for group in groups for file in sorted((whole / group).glob("*.safetensors"))]
    inner = megatron.iteration_folder(path)
    for files in (sorted(path.glob("*.safetensors")), _inside(inner), _pickled(path)):
        if files:
            return [*sorted(path.glob("*.index*.json")), *files, *_beside(path)]
    return _beside(path)


def file_parts(root: Path, files: Iterable[Path]) -> Iterator[Part]:
    """Name, size and sha256 of files; names are from the folder of the weights, with `..` above it."""
    files = list(dict.fromkeys(files))
    folder = root if root.is_dir() else root.parent
    for file, digest in zip(files, sha256_of_files(files), strict=True):
        name = printable(os.path.relpath(file, folder).replace(os.sep, "/"))
        yield Part(name, (name, file.stat().st_size, digest))


def _released(
    weights: ReleasedWeights, found: Path, files: Iterable[Path], contents_dir: Path, path: str
) -> Input:
    one = parts_input(
        file_parts(found, files),
        contents_dir,
        kind=tag_of(weights),
        name=f"{weights.name}/{weights.subfolder}".rstrip("/"),
        revision=weights.revision,
        details={"path": str(found.absolute())},
    )
    return pinned(one, weights.digest, path)


def _encoder_files(spec: Any, place: Path) -> list[Path]:
    """Of an encoder, with the tokenizer of a text encoder."""
    files = loaded_files(place)
    if isinstance(spec, Umt5TextEncoderSpec):
        places = (one for one in tokenizer_places(place) if (one / "tokenizer_config.json").is_file())
        for one in islice(places, 1):
            files += sorted(file for file in one.iterdir() if file.suffix in _OF_TOKENIZERS)
    return files


def _with_indexed_files(file: Path) -> list[Path]:
    """A file, and those beside it that it lists where it is an index."""
    if file.suffix != ".json":
        return [file]
    try:
        names = set(dict(read_json(file)["weight_map"]).values())
    except (ValueError, KeyError, TypeError):
        return [file]
    return [file, *(file.parent / name for name in sorted(map(str, names)) if (file.parent / name).is_file())]


def _inside(folder: Path) -> list[Path]:
    """All files of a checkpoint in many: MindSpeed-MM's folders by rank, torch's distributed ones."""
    if megatron.is_megatron(folder) or (folder / torch_dcp.METADATA).is_file():
        return sorted(file for file in folder.rglob("*") if file.is_file())
    return []


def _pickled(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)


def _beside(folder: Path) -> list[Path]:
    return [folder / name for name in _CONFIGURATIONS if (folder / name).is_file()]


def _visible(folder: Path) -> list[Path]:
    """All files of another package's encoder; downloaders keep their own notes in hidden folders."""
    if folder.is_file():
        return [folder]
    found = (file for file in folder.rglob("*") if file.is_file())
    return sorted(
        file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
