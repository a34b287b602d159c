"""What a run reports of its devices and their memory."""

import resource
import sys

import torch


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
