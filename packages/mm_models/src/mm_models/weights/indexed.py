"""Weights in several files, which an index lists, and folders with one file or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mm_config.schema import Problem, UserError
from mm_config.stored import read_json
from mm_models.naming import first_names
from mm_models.weights.pickled import read_pickled
from mm_models.weights.placeholders import placeholder
from mm_models.weights.safetensors_files import read_files
from mm_models.weights.tensors import StoredTensor

Found = tuple[dict[str, StoredTensor], list[str]]
"""Tensors by name, and the names of everything else."""
_MOST_FILES = 10_000
SUFFIXES = (".safetensors", ".bin")
"""Of files that an index may list: in `NAME.safetensors.index.json`, or in `NAME.safetensors.index.fp16.json`
of diffusers' variants."""


def is_index(path: Path) -> bool:
    """Whether a file's name is that of an index."""
    return path.suffix == ".json" and any(f"{suffix}.index" in path.name for suffix in SUFFIXES)


def holds(folder: Path, suffix: str) -> bool:
    """Whether files of that kind, or an index of them, lie in a folder."""
    return any(folder.glob(f"*{suffix}")) or any(folder.glob(f"*{suffix}.index*.json"))


def read_folder(folder: Path, suffix: str) -> Found:
    """The tensors of a folder with one file, or with several and an index.

    Raises:
        UserError: A file can't be read; there are several files without an index, several indexes, or files
            beside those of the index; or the index names files or tensors that are not there.
    """
    indexes = sorted(folder.glob(f"*{suffix}.index*.json"))
    files = sorted(folder.glob(f"*{suffix}"))
    if len(indexes) > 1:
        names = first_names(path.name for path in indexes)
        raise UserError(Problem(str(folder), f"holds several indexes; name one of {names}"))
    if indexes:
        listed = {name for name, _ in _files_and_tensors(indexes[0])}
        if others := [path.name for path in files if path.name not in listed]:
            message = (
                f"holds {indexes[0].name} and, beside its files, {first_names(others)}, so nothing tells "
                f"which are meant; name one of them"
            )
            raise UserError(Problem(str(folder), message))
        return read_index(indexes[0])
    if len(files) > 1:
        names = first_names(path.name for path in files)
        raise UserError(
            Problem(
                str(folder),
                f"holds {len(files)} {suffix[1:]} files and no index (*{suffix}.index.json), so nothing "
                f"tells which belong together; download the index, or name one of {names}",
            )
        )
    return read_one(files[0])


def read_one(file: Path) -> Found:
    """The tensors of a file of safetensors or of torch.save."""
    return (read_files([file]), []) if file.suffix == ".safetensors" else read_pickled(file)


def read_index(index: Path) -> Found:
    """The tensors that an index lists; its files lie beside it.

    Raises:
        UserError: It is no index, or names files outside its folder, or files or tensors that are not there.
    """
    placed = _files_and_tensors(index)
    names = sorted({name for name, _ in placed})
    if absent := [name for name in names if not (index.parent / name).is_file()]:
        gone = first_names(absent)
        raise UserError(
            Problem(str(index), f"lists files that are missing: {gone}; the download is not complete")
        )
    files = [index.parent / name for name in names]
    tensors, others = (read_files(files), []) if ".safetensors." in index.name else _merged(files, read_one)
    if lost := sorted({tensor for _, tensor in placed} - tensors.keys()):
        raise UserError(
            Problem(str(index), f"lists tensors that its files do not hold: {', '.join(lost[:10])}")
        )
    return tensors, others


def _files_and_tensors(index: Path) -> list[tuple[str, str]]:
    """The files and tensors of an index."""
    try:
        placed = dict(read_json(index)["weight_map"])
        outside = sorted({name for name in placed.values() if Path(name).name != name})
    except (ValueError, KeyError, TypeError) as error:
        stands = placeholder(index)
        told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        why = f"it is {stands}" if stands else told
        message = (
            f"is no index of {'safetensors' if '.safetensors.' in index.name else 'weights'} files: {why}"
        )
        raise UserError(Problem(str(index), message)) from error
    if (count := len(set(placed.values()))) > _MOST_FILES:
        raise UserError(Problem(str(index), f"lists {count} files, of which at most {_MOST_FILES} are read"))
    if outside:
        raise UserError(Problem(str(index), f"lists files outside its folder: {', '.join(outside[:10])}"))
    return [(file, tensor) for tensor, file in placed.items()]


def _merged(files: Sequence[Path], read: Callable[[Path], Found]) -> Found:
    tensors: dict[str, StoredTensor] = {}
    others: list[str] = []
    for file in files:
        found, rest = read(file)
        if twice := sorted(tensors.keys() & found.keys()):
            raise UserError(Problem(str(file), f"holds what another file holds too: {first_names(twice)}"))
        tensors |= found
        others += rest
    return tensors, others
