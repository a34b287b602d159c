"""What must not happen on an NPU, and raises here.

An `npu::` operator with a reference computes it; every other one raises. So does autocast to float16, which
is what autocast means on an NPU as long as nobody names another format.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.npu_references import REFERENCES
from tests.npu_standin.device import DEVICE, KEY, on_host, overload_of, schemas_with_kernel

NATIVE = {"get_npu_format", "npu_change_data_ptr"}
"""Operators that only look at how torch_npu holds a tensor."""

calls: Counter[str] = Counter()
"""How often each operator with a reference ran."""

HITS = "NPU_STANDIN_HITS"
"""Environment variable with the file to which every process adds a line for what raised in it, since somebody
may catch the error."""

_libraries: list[torch.library.Library] = []


class NoReference(NotImplementedError):
    """Something called an `npu::` operator that has no reference."""


class Float16Autocast(RuntimeError):
    """Something entered an autocast to float16."""


def hits() -> list[str]:
    """What raised since the last `forget`, in this process and its children."""
    path = Path(os.environ[HITS])
    return path.read_text().split() if path.exists() else []


def forget() -> None:
    """Forgets what raised."""
    Path(os.environ[HITS]).unlink(missing_ok=True)


def _remember(name: str) -> None:
    if path := os.environ.get(HITS):
        with open(path, "a") as file:
            file.write(f"{name}\n")


def register() -> None:
    """Puts references and guards over torch_npu's kernels, which have no hardware to run on."""
    library = torch.library.Library("npu", "IMPL")
    _libraries.append(library)
    for schema in schemas_with_kernel("npu"):
        name = overload_of(schema)
        if name in NATIVE:
            continue
        kernel = _counted(name, REFERENCES[name]) if name in REFERENCES else _refused(name)
        library.impl(name, kernel, KEY, allow_override=True)
    _watch_autocast()


def _watch_autocast() -> None:
    enter = torch.autocast.__enter__

    def checked(self: torch.autocast) -> Any:
        if self.device == DEVICE and self._enabled and self.fast_dtype is torch.float16:
            _remember("autocast")
            raise Float16Autocast("autocast to float16, which is the default on an NPU; name bfloat16")
        return enter(self)

    torch.autocast.__enter__ = checked


def _counted(name: str, reference: Callable[..., Any]) -> Callable[..., Any]:
    run = on_host(reference)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return run(*args, **kwargs)

    return kernel


def _refused(name: str) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        _remember(name)
        raise NoReference(f"npu::{name} has no reference in tests/npu_references.py")

    return kernel
