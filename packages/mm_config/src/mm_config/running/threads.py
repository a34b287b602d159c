"""On how many threads a run computes, where it is to be as many as another run had."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from mm_config.options.run_options import Threads

_OPENMP = "OMP_NUM_THREADS"


@contextmanager
def on_threads(threads: Threads | None) -> Generator[None]:
    """Computes a block on so many threads; None changes nothing.

    OpenMP reads the variable when a library that uses it is loaded, so torch, where it is loaded already, is
    told by its own function. Whoever loads it in the block enters another one after that.
    """
    if threads is None:
        yield
        return
    torch: Any = sys.modules.get("torch")
    before, count = os.environ.get(_OPENMP), torch.get_num_threads() if torch else 0
    os.environ[_OPENMP] = str(threads.openmp)
    if torch:
        torch.set_num_threads(threads.torch or threads.openmp)
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(count)
        if before is None:
            del os.environ[_OPENMP]
        else:
            os.environ[_OPENMP] = before
