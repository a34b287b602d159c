"""Clips moved to the device: with a stream beside the computation, as without one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from mm_models import device as devices
from mm_train.moving import Mover

CPU = torch.device("cpu")


class Side:
    """A side stream of a device that is no other than the CPU; it writes down what happens when."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def __enter__(self) -> None:
        self.log.append("copy")

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    log: list[str] = []

    def await_moved(side: Side, tensors: Iterable[Tensor]) -> None:
        log.append(f"wait for {len(list(tensors))}")

    monkeypatch.setattr(devices, "await_moved", await_moved)
    return log


def clips(count: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(count)
    return [torch.randint(0, 256, (5, 4, 6, 3), dtype=torch.uint8, generator=draw) for _ in range(count)]


def test_what_was_announced_is_copied_before_it_is_asked_for(log: list[str]) -> None:
    mover, frames, later = Mover(CPU, Side(log)), clips(3), clips(2)  # type: ignore[arg-type]
    mover.begin(frames)
    assert log == ["copy"]
    assert mover.take(frames).equal(torch.stack(frames))
    assert log == ["copy", "wait for 3"]
    assert mover.take(later).equal(torch.stack(later)), "nobody announced these"
    assert log == ["copy", "wait for 3", "copy", "wait for 2"]


def test_others_than_announced_are_right_as_well(log: list[str]) -> None:
    mover, frames = Mover(CPU, Side(log)), clips(4)  # type: ignore[arg-type]
    mover.begin(frames[:2])
    assert mover.take(frames[1:]).equal(torch.stack(frames[1:]))
    mover.begin(frames[:1])
    mover.begin([])
    assert mover.take(frames[::-1]).equal(torch.stack(frames[::-1]))


def test_a_cpu_has_no_stream_beside_it_and_no_pinned_memory() -> None:
    frames = clips(2)
    assert devices.side_stream(CPU) is None
    assert devices.pinned(frames[0], CPU) is frames[0]
    mover = Mover(CPU, devices.side_stream(CPU))
    mover.begin(frames)
    assert mover.take(frames).equal(torch.stack(frames))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator")
def test_an_accelerator_gets_the_same_bytes_from_pinned_memory() -> None:
    picked = devices.pick()
    mover, frames = Mover(picked, devices.side_stream(picked)), clips(4)
    for _ in range(20):
        pinned = [devices.pinned(one, picked) for one in frames]
        assert all(one.is_pinned() for one in pinned)
        mover.begin(pinned[:2])
        assert mover.take(pinned[:2]).cpu().equal(torch.stack(frames[:2]))
        assert mover.take(pinned).cpu().equal(torch.stack(frames))
