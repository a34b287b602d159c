"""Time and memory of several ways to compute the same, in one process."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

Step = Callable[[], Tensor]


def parser_of(about: str, *, width: int, tokens: int, rounds: int) -> argparse.ArgumentParser:
    """The options of a benchmark that sets our network beside diffusers'."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"width": width, "layers": 2, "tokens": tokens, "batch": 1, "rounds": rounds}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    return parser


def parsed(parser: argparse.ArgumentParser, tokens_of_frame: int) -> argparse.Namespace:
    """The options as they were given; ends the process where tokens or width don't divide."""
    options = parser.parse_args()
    if options.tokens % tokens_of_frame or options.width % 128:
        parser.error(f"tokens must be a multiple of {tokens_of_frame} and the width of 128")
    return options


def seconds(device: torch.device, act: Callable[[], object]) -> float:
    """How long something takes, the accelerator's work included."""
    _wait(device)
    started = time.perf_counter()
    act()
    _wait(device)
    return time.perf_counter() - started


def interleaved(
    device: torch.device, ways: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Times of each way. They take turns, so that a busy machine slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, act in ways.items():
            times[name].append(seconds(device, act))
    return times


def ratio(times: list[float], of_others: list[float]) -> str:
    """The quotient of medians and, in brackets, of minima, which a busy machine changes less."""
    medians = statistics.median(times) / statistics.median(of_others)
    return f"{medians:.3f} ({min(times) / min(of_others):.3f})"


def kept_bytes(step: Step, apart: Iterable[Tensor] = ()) -> int:
    """What autograd keeps between a forward pass and its backward pass, each storage once.

    Args:
        step: The forward pass.
        apart: Tensors that are there anyway, such as parameters and inputs.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in apart}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = step()
    del out
    return sum(sizes.values())


def peak_bytes(device: torch.device, act: Callable[[], object]) -> int:
    """The most that is allocated at a time while something runs, above what was before."""
    if device.type != "cpu":
        _wait(device)
        torch.accelerator.reset_peak_memory_stats(device)
        before = torch.accelerator.memory_allocated(device)
        act()
        _wait(device)
        return torch.accelerator.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        act()
    total = peak = 0
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            total += event.nbytes()  # type: ignore[attr-defined]
            peak = max(peak, total)
    return peak


def print_profile(device: torch.device, act: Callable[[], object], lines: int = 15) -> None:
    """The share of each operation in the time, the dearest first."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        act()
        _wait(device)
    on_cpu = device.type == "cpu"
    events = {
        event.key: event.self_cpu_time_total if on_cpu else event.self_device_time_total
        for event in recorded.key_averages()
    }
    total = sum(events.values())
    for name, spent in sorted(events.items(), key=lambda pair: -pair[1])[:lines]:
        print(f"  {spent / total:6.1%}  {name}")


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
