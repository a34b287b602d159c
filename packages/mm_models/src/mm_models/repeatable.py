"""Deterministic computation: what torch and the libraries below it are told."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from mm_config.schema import Problem, UserError
from mm_models.device import multiplies_by_cublas

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_FIXED = (":4096:8", ":16:8")
"""Workspaces with which cuBLAS sums in one order, by NVIDIA's documentation; the first is faster."""
_NO_FORM = "does not have a deterministic implementation"
"""What torch says of such an operation."""


@contextmanager
def deterministic(device: torch.device, wanted: bool, path: str = "spec.runtime") -> Generator[None]:
    """Lets only deterministic kernels run in a block, and leaves everything as it was.

    What HCCL and an NPU's products need is exported before torch_npu is imported, see mm_config.npu.

    Args:
        device: Where is computed.
        wanted: Whether to do anything.
        path: Canonical path of the spec's runtime, for errors.

    Raises:
        UserError: The shell asks cuBLAS for something else, or an operation in the block has no
            deterministic form; it is named.
    """
    if not wanted:
        yield
        return
    with ExitStack() as restored:
        if multiplies_by_cublas(device):
            restored.enter_context(_workspace(path))
        for owner, name, value in _settings(device):
            restored.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        before = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        restored.callback(torch.use_deterministic_algorithms, before[0], warn_only=before[1])
        torch.use_deterministic_algorithms(True)
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, UserError) or _NO_FORM not in str(error):
                raise
            said = str(error).partition(_NO_FORM)[0]
            raise UserError(Problem(f"{path}.deterministic", f"{said}{_NO_FORM} on {device.type}")) from error


def _settings(device: torch.device) -> Iterator[tuple[Any, str, Any]]:
    """Owner, name and value of each switch."""
    yield torch.backends.cudnn, "benchmark", False
    yield torch.backends.cudnn, "deterministic", True
    # Memory without values is the same in each run; torch_npu leaves it as it finds it unless told.
    yield torch.utils.deterministic, "fill_uninitialized_memory", True
    if device.type != "cpu" or "torch._inductor" in sys.modules:
        from torch._inductor import config

        yield config, "deterministic", True


@contextmanager
def _workspace(path: str) -> Generator[None]:
    found = os.environ.get(CUBLAS)
    if found is not None and found not in CUBLAS_FIXED:
        allowed = " or ".join(CUBLAS_FIXED)
        message = f"needs {CUBLAS}={allowed}, but the shell has {found}; unset it there"
        raise UserError(Problem(f"{path}.deterministic", message))
    os.environ.setdefault(CUBLAS, CUBLAS_FIXED[0])
    try:
        yield
    finally:
        if found is None:
            os.environ.pop(CUBLAS, None)
