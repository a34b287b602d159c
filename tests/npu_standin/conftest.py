"""These tests need torch_npu over the stand-in, which only `run.py` loads: see README.md."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.mm_infer.conftest import options, random_spec, release, spec
from tests.mm_models.test_clip import release as clip_release
from tests.mm_models.test_umt5 import release as umt5_release

__all__ = ["clip_release", "options", "random_spec", "release", "spec", "umt5_release"]

LOADED = "NPU_STANDIN_DEVICES" in os.environ
WHY_NOT = os.environ.get("NPU_STANDIN_UNAVAILABLE", "the stand-in is loaded by `make test-npu` alone")

NO_PRIVATE_FORMATS = "Cannot create tensor with internal format while allow_internal_format=False"
"""torch_npu's word on what the project asks it for."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, and skips them where there is no stand-in."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.npu)
            item.add_marker(pytest.mark.filterwarnings(f"ignore:{NO_PRIVATE_FORMATS}"))
            if not LOADED:
                item.add_marker(pytest.mark.skip(reason=f"no NPU stand-in: {WHY_NOT}"))


@pytest.fixture(scope="session", autouse=True)
def _hits(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Children are told as well where to write what their guard caught."""
    os.environ["NPU_STANDIN_HITS"] = str(tmp_path_factory.mktemp("guard") / "hits")


@pytest.fixture(autouse=True)
def npu_calls() -> Iterator[Counter[str]]:
    """How often each fused operator ran in the test.

    What the guard caught in it, here or in a child, fails the test, even if somebody caught the error.
    """
    if not LOADED:
        yield Counter()
        return
    from tests.npu_standin import guard

    guard.calls.clear()
    yield guard.calls
    caught = guard.hits()
    guard.forget()
    assert caught == []


@pytest.fixture
def npu() -> torch.device:
    """The device, prepared as the project prepares it."""
    from mm_models import device

    return device.pick("npu")
