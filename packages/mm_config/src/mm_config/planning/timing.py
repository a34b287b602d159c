"""How long a step or a video takes on a device: lower bounds, and the time at a stated efficiency."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from mm_config.planning.costs import Flow, Work
from mm_config.planning.devices import RANKS_PER_NODE, Device
from mm_config.specs.dtype import Dtype


@attrs.frozen
class Timing:
    """Seconds of a training step, or of a video's denoising."""

    floor: float
    """No run is faster: the larger of computation and traffic, which overlap at best."""
    computation: float
    """Executed FLOPs at the rate of large matrix products, at the peak where none is published."""
    traffic: float
    """The slowest of links, network and host at their full bandwidth."""
    kernels: float | None
    """Computation with attention at its own kernels' rates; None where the device has none published."""
    at_efficiency: float
    """Model FLOPs at the stated share of the peak, but never below the floor."""


def timing(work: Work, flows: Iterable[Flow], device: Device, efficiency: float) -> Timing:
    """Times on a device.

    Args:
        work: What is computed by `work.ranks` ranks together.
        flows: What each rank moves.
        device: The device of each rank.
        efficiency: Model FLOPs per second as a share of the peak (MFU).
    """
    peak = device.peak_flops(work.dtype, work.allow_tf32)
    kernels = None if work.dtype is Dtype.FLOAT32 else device.kernels
    computation = work.executed_flops / (kernels.products if kernels else peak) / work.ranks
    traffic = _traffic_seconds(flows, device)
    floor = max(computation, traffic)
    bound = None
    if kernels is not None:
        bound = work.product_flops / kernels.products
        bound += work.attention_forward_flops / kernels.attention_forward
        # The kernel computes five products where the count of two forward passes has four.
        bound += 1.25 * work.attention_backward_flops / kernels.attention_backward
        bound = max(bound / work.ranks, traffic)
    expected = work.step_flops / (peak * efficiency) / work.ranks
    return Timing(floor, computation, traffic, bound, max(expected, bound or floor))


def _traffic_seconds(flows: Iterable[Flow], device: Device) -> float:
    """Media work side by side; what flows over one of unknown bandwidth is left out."""
    bandwidths = {
        "host": device.host_bandwidth,
        "links": device.link_bandwidth,
        "network": device.network_bandwidth,
    }
    seconds = dict.fromkeys(bandwidths, 0.0)
    for flow in flows:
        medium = "host" if flow.span == 0 else "links" if flow.span <= RANKS_PER_NODE else "network"
        if bandwidth := bandwidths[medium]:
            seconds[medium] += flow.bytes / bandwidth
    return max(seconds.values())
