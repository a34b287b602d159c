"""Ascend's operators for the tests of this folder."""

from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from tests.npu_schema.schemas import define


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are no faster on two threads, and far slower where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def _operators() -> Iterator[Counter[str]]:
    calls: Counter[str] = Counter()
    library = define(calls)
    yield calls
    library._destroy()


@pytest.fixture
def npu_calls(_operators: Counter[str]) -> Counter[str]:
    """How often each operator was called, counted anew."""
    _operators.clear()
    return _operators
