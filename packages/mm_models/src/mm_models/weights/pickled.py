"""`.pt`, `.pth` and `.bin` files: tensors mapped from the file, nothing of it executed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mm_config.durable import open_regular
from mm_config.schema import Problem, UserError
from mm_models.weights.pickle_sizes import TooLarge, require_saved
from mm_models.weights.placeholders import placeholder
from mm_models.weights.tensors import StoredTensor, in_memory

SUFFIXES = (".pt", ".pth", ".bin")
_DEEPEST = 20
"""A dictionary that holds itself has no end."""


def read_pickled(path: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors of a file that torch.save wrote, and the names of what else it holds.

    Dictionaries inside of dictionaries are joined by dots.

    Raises:
        UserError: The file is damaged, holds objects that only executing it could make (they are named), or
            no tensors by name.
    """
    return flat(load_payload(path), path)


def load_payload(path: Path) -> Any:
    """What a file holds, where that is tensors, numbers, texts and their containers.

    Files of torch before 1.6 are no zip files; they can't be mapped and are read into memory.
    """
    try:
        with open_regular(path) as file:
            require_saved(file)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # A damaged pickle raises anything.
        raise UserError(Problem(str(path), _why(path, error))) from error


def load_tensor(content: bytes) -> Tensor:
    """The one tensor that some bytes of a distributed checkpoint hold.

    Raises:
        ValueError: They hold something else.
    """
    try:
        require_saved(io.BytesIO(content))
        tensor = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # Damaged bytes raise anything.
        raise ValueError(_first_line(error)) from error
    if not isinstance(tensor, Tensor):
        raise ValueError(f"expected a tensor, got {type(tensor).__name__}")
    return tensor


def flat(payload: Any, path: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """Tensors by their dotted names, and the names of everything else.

    Raises:
        UserError: What the file holds is no dictionary, holds itself, or gives two tensors one name.
    """
    if not isinstance(payload, Mapping):
        message = f"holds no tensors by name, but one {type(payload).__name__}"
        raise UserError(Problem(str(path), message))
    tensors: dict[str, StoredTensor] = {}
    others: list[str] = []
    for name, value in _leaves("", payload, path):
        if name in tensors:
            raise UserError(Problem(str(path), f"holds {name} twice"))
        if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized:
            _require_stored(name, value, path)
            tensors[name] = in_memory(value.detach())
        else:
            others.append(name)
    return tensors, others


def _require_stored(name: str, value: Tensor, path: Path) -> None:
    """Refuses a tensor of more values than the file has bytes for: strides of 0 make one value a terabyte."""
    held = max(value.untyped_storage().nbytes(), path.stat().st_size)
    if value.numel() * value.element_size() > held:
        message = (
            f"{name} is {tuple(value.shape)}, but its values have {value.untyped_storage().nbytes()} bytes"
        )
        raise UserError(Problem(str(path), message))


def _leaves(prefix: str, value: Any, path: Path, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if depth == _DEEPEST:
            raise UserError(Problem(str(path), f"holds dictionaries in each other more than {_DEEPEST} deep"))
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner, path, depth + 1)
    else:
        yield prefix, value


def _why(path: Path, error: Exception) -> str:
    if forbidden := _globals(path):
        note = (
            "; a trained MindSpeed-MM file carries its arguments: make weights of it first with "
            "MindSpeed-MM's own converter (its command mm-convert, not our `mm convert`)"
            if "argparse.Namespace" in forbidden
            else ""
        )
        return f"holds Python objects that are never loaded: {', '.join(forbidden)}{note}"
    if isinstance(error, TooLarge):
        return str(error)
    if isinstance(error, OSError):
        return f"can't be read: {error.strerror or error}"
    if stands := placeholder(path):
        return f"can't be read: it is {stands}"
    return "can't be read as tensors of torch.save: it was cut short, is damaged, or is another kind of file"


def _globals(path: Path) -> list[str]:
    """What unpickling would import beside tensors; the pickle is looked through, not run."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # No zip file, or damaged.
        return []


def _first_line(error: Exception) -> str:
    return (
        f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}"
    )
