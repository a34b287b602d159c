"""What a run reports of its devices and their memory."""

import resource
import sys
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def device_names(device: torch.device) -> tuple[str, ...]:
    """Names of the accelerators of this machine; none on a CPU."""
    if device.type == "cpu":
        return ()
    module = torch.get_device_module(device)
    return tuple(module.get_device_name(index) for index in range(torch.accelerator.device_count()))


def peak_gib(device: torch.device) -> float:
    """The most memory in use so far, in GiB.

    On an accelerator what its allocator gave; on a CPU the resident memory of this process, or of a child
    that has ended, where that was more.
    """
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated(device) / 2**30
    largest = max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    # macOS counts bytes, Linux KiB.
    return largest / (2**30 if sys.platform == "darwin" else 2**20)


def free_bytes(device: torch.device) -> int | None:
    """Memory that nobody uses now: an accelerator's, or this machine's; None where nobody tells.

    On a CPU it is what programs can have without swapping, or what is left to the group of processes that
    this one is in, where that is less.
    """
    if device.type != "cpu":
        return torch.get_device_module(device).mem_get_info(device)[0]
    if not _MEMINFO.is_file():
        return None
    entries = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    found = [int(entries["MemAvailable"].split()[0]) * 1024]
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
        found.append(max(0, int(text) - int(used.read_text())))
    return min(found)
