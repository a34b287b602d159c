"""What is kept waits elsewhere and comes back in the order of the backward pass."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mm_train import offloading
from mm_train.offloading import Offload

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_tensors_wait_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offloading, "LEAST_BYTES", 1)


class Square(nn.Module):
    """Keeps its input and, with `twice`, a view of it."""

    def __init__(self, twice: bool = False) -> None:
        super().__init__()
        self.twice = twice

    def forward(self, x: Tensor, common: Tensor) -> Tensor:
        return (x.square() + x[1:].sin().sum() * self.twice) * common


def chain(length: int, offload: Offload | None, twice: bool = False) -> nn.Sequential:
    network = nn.Sequential(*(Square(twice) for _ in range(length)))
    if offload is not None:
        offload.around(network, [str(place) for place in range(length)])
    return network


def through(network: nn.Sequential, x: Tensor, common: Tensor) -> Tensor:
    for module in network:
        x = module(x, common)
    return x


@pytest.mark.parametrize("ahead", [0, 1, 2, 9])
def test_passes_come_back_from_the_last_on_some_ahead(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    length = 5
    offload = Offload(CPU, ahead)
    network, brought, needed = chain(length, offload), [], []
    places: dict[Any, int] = {}
    bring, get = offloading._Waiting.bring, offloading._Waiting.bytes

    def noted(waiting: Any, side: None) -> None:
        if waiting._back is None:
            brought.append(places[waiting])
        bring(waiting, side)

    def asked(waiting: Any, side: None) -> Tensor:
        needed.append(places[waiting])
        assert waiting._back is not None or ahead == 0
        # All that is ahead has been asked for, and nothing else.
        assert min(brought) == max(0, min(needed) - ahead)
        return get(waiting, side)

    monkeypatch.setattr(offloading._Waiting, "bring", noted)
    monkeypatch.setattr(offloading._Waiting, "bytes", asked)
    out = through(network, torch.rand(4, requires_grad=True), torch.rand(4))
    places |= {one: place for place, held in enumerate(offload._passes) for one in held}
    out.sum().backward()
    assert sorted(set(needed), reverse=True) == list(dict.fromkeys(needed)) == [4, 3, 2, 1, 0]
    assert all(later <= earlier for earlier, later in pairwise(brought))


def test_values_are_kept_as_they_were_once_for_all_views_of_them() -> None:
    expected, found = [], []
    for offload, into in ((None, expected), (Offload(CPU, 1), found)):
        network = chain(3, offload, twice=True)
        x, common = (torch.linspace(0.5, 1.5, 6), torch.linspace(1, 2, 6))
        x.requires_grad_()
        out = through(network, x * 1, common)
        if offload is not None:
            # Of each module its input; the common factor is kept by the first one and then where it is.
            assert [len(one) for one in offload._passes] == [2, 1, 1]
        for _ in range(2):
            (gradient,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
            into.append(gradient)
        del out
        if offload is not None:
            assert not any(offload._passes)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


def test_a_value_that_is_changed_between_is_kept_twice() -> None:
    offload, kept, x = Offload(CPU, 1), [], torch.ones(4)

    class Changing(nn.Module):
        def forward(self) -> None:
            for _ in range(2):
                kept.append(offload.pack(x))
                x.add_(1)

    network = nn.Sequential(Changing())
    offload.around(network, ["0"])
    network[0]()
    assert [offload.unpack(one).tolist() for one in kept] == [[1.0] * 4, [2.0] * 4]


def test_parameters_and_small_values_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offloading, "LEAST_BYTES", 4 * 64)
    offload = Offload(CPU, 1)
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 1))
    offload.around(network, ["0", "1"])
    kept = network(torch.rand(1, 64))
    assert [len(one) for one in offload._passes] == [1, 1]
    assert isinstance(offload.pack(network.get_parameter("1.weight").t()), Tensor)
    small, large = torch.rand(63), torch.rand(64)
    assert offload.pack(small) is small and offload.pack(large) is not large
    kept.sum().backward()


@pytest.mark.gpu
def test_on_a_gpu_what_waits_takes_no_memory_there_and_comes_back_the_same() -> None:
    gpu, size = torch.device("cuda"), 2**22
    grads, peaks = [], []
    for offload in (None, Offload(gpu, 1)):
        network = chain(8, offload)
        x = torch.linspace(0.9, 1.1, size, device=gpu).requires_grad_()
        common = torch.ones(size, device=gpu)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        out = through(network, x, common)
        torch.cuda.synchronize()
        peaks.append(torch.cuda.memory_allocated() - before)
        out.sum().backward()
        grads.append(x.grad)
    assert torch.equal(grads[0], grads[1])
    # Beside the output and the two values of the last module.
    assert peaks[0] >= 2 * 8 * 4 * size and peaks[1] <= 4 * 4 * size
