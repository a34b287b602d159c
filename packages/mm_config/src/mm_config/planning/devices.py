"""What devices can do, each figure with the document it is from, and how long a step or a video takes them.

Figures are those of one device, dense (without structured sparsity), in decimal units as datasheets have
them; bandwidths are one way. A figure that no public document gives is None, and nothing is bounded by it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

import attrs

from mm_config.planning.costs import Flow, Work
from mm_config.rules.wording import one_of
from mm_config.schema.errors import Problem, UserError
from mm_config.specs.dtype import Dtype

RESERVE = 0.08
"""Share of a device's memory that a plan leaves to the driver, communication buffers and fragmentation."""
RANKS_PER_NODE = 8
"""Ranks that reach each other by links; more of them also use the network."""

_UNPUBLISHED_EFFICIENCY = 0.33
_NONE_PUBLISHED = "none published for Wan; a third is near those of other devices"


@attrs.frozen
class Kernels:
    """What the fastest published kernels sustain in bfloat16, in FLOP/s."""

    products: float
    """Large matrix products."""
    attention_forward: float
    """Attention's forward pass, head width 128, not causal."""
    attention_backward: float
    """Its backward pass, which computes five products where the model's count has four: 2.5 forwards."""


@attrs.frozen
class Device:
    """One kind of device."""

    name: str
    """As a person knows it."""
    bf16_flops: float
    """Peak of bfloat16 and float16 products, FLOP/s."""
    fp32_flops: float
    """Peak of exact float32 products, FLOP/s."""
    memory_bytes: int
    """Memory of one."""
    sources: dict[str, str]
    """Where each figure is from, by the name of its field."""
    link_bandwidth: float | None = None
    """Bytes per second that a rank sends to the others of its node."""
    network_bandwidth: float | None = None
    """Bytes per second that a rank sends to other nodes."""
    host_bandwidth: float | None = None
    """Bytes per second between the device and the host's memory."""
    train_efficiency: float = _UNPUBLISHED_EFFICIENCY
    """Model FLOPs per second of a real training as a share of the peak (MFU)."""
    infer_efficiency: float = _UNPUBLISHED_EFFICIENCY
    """The same of a real generation."""
    tf32_flops: float | None = None
    """Peak of float32 products with rounded factors, FLOP/s."""
    kernels: Kernels | None = None
    """How fast its kernels are; None where it was not measured."""

    def peak_flops(self, dtype: Dtype, allow_tf32: bool = False) -> float:
        """The peak in the format that a network computes in."""
        if dtype is not Dtype.FLOAT32:
            return self.bf16_flops
        return self.tf32_flops or self.fp32_flops if allow_tf32 else self.fp32_flops

    @property
    def usable_bytes(self) -> int:
        """The memory less the reserve."""
        return int(self.memory_bytes * (1 - RESERVE))


def _datasheet(document: str, **others: str) -> dict[str, str]:
    names = (field.name for field in attrs.fields(Device) if field.name not in ("name", "sources"))
    efficiencies = dict.fromkeys(("train_efficiency", "infer_efficiency"), _NONE_PUBLISHED)
    return {**dict.fromkeys(names, document), **efficiencies, **others}


def _hopper(model: str) -> dict[str, str]:
    return _datasheet(
        f"NVIDIA {model} Tensor Core GPU datasheet, SXM",
        network_bandwidth=f"NVIDIA DGX {model} datasheet: 400 Gb/s for each GPU",
        kernels=_FA3,
        train_efficiency=_MEGATRON,
        infer_efficiency=_OFFICIAL_H100,
    )


_FA3 = (
    "products: 80 % of the peak, as large ones sustain on H100 SXM (maximum achievable matmul FLOPS, "
    "stas00/ml-engineering); attention: FlashAttention-3 at sequences of 8k to 16k "
    "(facebookexperimental/triton#3463, meta-pytorch/tritonbench#1254)"
)
_HOPPER_KERNELS = Kernels(products=790e12, attention_forward=640e12, attention_backward=560e12)
_MEGATRON = "Wan2.1-14B on 128 H100: 325.8 TFLOP/s each (Megatron-Bridge, Wan performance summary)"
_OFFICIAL_H100 = "T2V-A14B at 720x1280x81 in 1,041.5 s on one H100 (Wan2.2 README)"
_MINDSPEED = "Wan2.1-14B at 0.160 samples/s on eight, 480x832x81 assumed (MindSpeed-MM README)"
_PCIE5, _PCIE4 = 64e9, 32e9

_H200 = Device(
    name="h200",
    bf16_flops=989e12,
    tf32_flops=494.5e12,
    fp32_flops=67e12,
    memory_bytes=141 * 10**9,
    link_bandwidth=450e9,
    network_bandwidth=50e9,
    host_bandwidth=_PCIE5,
    train_efficiency=0.329,
    infer_efficiency=0.51,
    kernels=_HOPPER_KERNELS,
    sources=_hopper("H200"),
)
_H100 = attrs.evolve(_H200, name="h100", memory_bytes=80 * 10**9, sources=_hopper("H100"))
_A100_80GB = Device(
    name="a100-80gb",
    bf16_flops=312e12,
    tf32_flops=156e12,
    fp32_flops=19.5e12,
    memory_bytes=80 * 10**9,
    link_bandwidth=300e9,
    network_bandwidth=25e9,
    host_bandwidth=_PCIE4,
    train_efficiency=0.32,
    infer_efficiency=0.61,
    sources=_datasheet(
        "NVIDIA A100 Tensor Core GPU datasheet, SXM",
        network_bandwidth="NVIDIA DGX A100 datasheet: 200 Gb/s for each GPU",
        infer_efficiency="T2V-A14B at 720x1280x81 in 2,735.7 s on one (Wan2.2 README)",
        train_efficiency="the GPU that MindSpeed-MM's README compares with, taken for an A100: Wan2.1-14B at "
        "0.160 samples/s on eight",
    ),
)
_A100_40GB = attrs.evolve(_A100_80GB, name="a100-40gb", memory_bytes=40 * 10**9)
_L40S = Device(
    name="l40s",
    bf16_flops=362e12,
    tf32_flops=183e12,
    fp32_flops=91.6e12,
    memory_bytes=48 * 10**9,
    link_bandwidth=_PCIE4,
    host_bandwidth=_PCIE4,
    sources=_datasheet("NVIDIA L40S datasheet; ranks are linked by PCIe"),
)
_RTX_4090 = Device(
    name="rtx-4090",
    bf16_flops=165.2e12,
    tf32_flops=82.6e12,
    fp32_flops=82.6e12,
    memory_bytes=24 * 10**9,
    link_bandwidth=_PCIE4,
    host_bandwidth=_PCIE4,
    infer_efficiency=0.58,
    sources=_datasheet(
        "NVIDIA Ada GPU architecture whitepaper (products added up in float32); ranks are linked by PCIe",
        infer_efficiency="TI2V-5B at 704x1280x121 in 534.7 s on one (Wan2.2 README)",
    ),
)
_ATLAS_A2 = Device(
    name="atlas-a2",
    bf16_flops=354e12,
    fp32_flops=88.5e12,
    memory_bytes=64 * 10**9,
    link_bandwidth=196e9,
    network_bandwidth=25e9,
    train_efficiency=0.28,
    infer_efficiency=0.28,
    sources=_datasheet(
        "Ascend 910B of Atlas 800T A2: 24 cores, 8,192 bfloat16 FLOP per cycle each, 1.8 GHz",
        fp32_flops="Ascend 910B: a quarter of the bfloat16 rate",
        memory_bytes="Huawei Atlas 800T A2 product page: 64 GB HBM for each NPU",
        link_bandwidth="Huawei Atlas 800T A2 user guide: seven HCCS links of 28 GB/s each way",
        network_bandwidth="Huawei Atlas 800T A2 product page: one 200 Gb/s RoCE port for each NPU",
        train_efficiency=_MINDSPEED,
        infer_efficiency=f"as in training: {_MINDSPEED}",
    ),
)

DEVICES = {
    device.name: device for device in (_H200, _H100, _A100_80GB, _A100_40GB, _L40S, _RTX_4090, _ATLAS_A2)
}
ALIASES = {"a100": "a100-80gb"}
CPU = "cpu"
"""The one device that is no entry of the table: it is this machine, and its ranks share it."""
NAMES = (*DEVICES, *ALIASES, CPU)


def device_named(name: str, ranks: int = 1) -> Device:
    """A device by its name.

    Args:
        name: One of `NAMES`.
        ranks: Ranks that share this machine's cores and memory, for `cpu`.

    Raises:
        UserError: There is no device of this name; all known ones are listed.
    """
    if name not in NAMES:
        raise UserError(Problem("device", one_of(name, NAMES)))
    if name != CPU:
        return DEVICES[ALIASES.get(name, name)]
    flops = (os.cpu_count() or 1) / ranks * 32 * 2.5e9
    return Device(
        name=CPU,
        bf16_flops=flops,
        fp32_flops=flops,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // ranks,
        sources=_datasheet(
            "assumed: two fused multiply-adds of 8 float32 per core and cycle, 2.5 GHz",
            memory_bytes="this machine's, shared by the ranks",
        ),
    )


@attrs.frozen
class Timing:
    """Seconds of a training step, or of a video's denoising."""

    floor: float
    """No run is faster: the larger of computation and traffic, which overlap at best."""
    computation: float
    """Executed FLOPs at the rate of large matrix products, at the peak where none is published."""
    traffic: float
    """The slowest of links, network and host at their full bandwidth."""
    hidden: float
    """Of the traffic, what flows while the ranks compute."""
    exposed: float
    """What they wait for."""
    kernels: float | None
    """Computation with attention at its own kernels' rates; None where the device has none published."""
    at_efficiency: float
    """Model FLOPs at the stated share of the peak, but never below the floor."""
    predicted: float
    """Executed FLOPs at that share, recomputation's too, and the exposed traffic."""


def timing(work: Work, flows: Collection[Flow], device: Device, efficiency: float) -> Timing:
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
    traffic = _traffic_seconds(((flow.bytes, flow.span) for flow in flows), device)
    floor = max(computation, traffic)
    bound = None
    if kernels is not None:
        bound = work.product_flops / kernels.products
        bound += work.attention_forward_flops / kernels.attention_forward
        # The kernel computes five products where the count of two forward passes has four.
        bound += 1.25 * work.attention_backward_flops / kernels.attention_backward
        bound = max(bound / work.ranks, traffic)
    sustained = peak * efficiency * work.ranks
    slow = work.executed_flops / sustained
    hideable = _traffic_seconds(((flow.hideable, flow.span) for flow in flows), device)
    alone = _traffic_seconds(((flow.bytes - flow.hideable, flow.span) for flow in flows), device)
    hidden = min(slow, hideable)
    exposed = alone + hideable - hidden
    return Timing(
        floor=floor,
        computation=computation,
        traffic=traffic,
        hidden=hidden,
        exposed=exposed,
        kernels=bound,
        at_efficiency=max(work.step_flops / sustained, bound or floor),
        predicted=slow + exposed,
    )


def _traffic_seconds(sizes: Iterable[tuple[int, int]], device: Device) -> float:
    """Seconds of bytes among a number of ranks. Media work side by side; what flows over one of unknown
    bandwidth is left out."""
    bandwidths = {
        "host": device.host_bandwidth,
        "links": device.link_bandwidth,
        "network": device.network_bandwidth,
    }
    seconds = dict.fromkeys(bandwidths, 0.0)
    for size, span in sizes:
        medium = "host" if span == 0 else "links" if span <= RANKS_PER_NODE else "network"
        if bandwidth := bandwidths[medium]:
            seconds[medium] += size / bandwidth
    return max(seconds.values())
