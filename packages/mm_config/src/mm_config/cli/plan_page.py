"""A plan as lines that a person reads, in the decimal units of datasheets."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from mm_config.planning.costs import collectives
from mm_config.planning.devices import NAMES, RANKS_PER_NODE, RESERVE, Device
from mm_config.planning.layouts import Search
from mm_config.planning.plan import Plan, plan
from mm_config.rules.wording import counted
from mm_config.schema.root import RootSpec
from mm_config.specs.requests import GenerationRequest

_WIDTH = 80
_LEAST_SHARE = 5e-4
"""Of the forward pass, below which a part has no line of its own."""
_FLOP_PREFIXES = ((15, "P"), (12, "T"), (9, "G"), (6, "M"))


def plan_lines(
    spec: RootSpec,
    world_size: int,
    device: str | None = None,
    efficiency: float | None = None,
    request: GenerationRequest | None = None,
) -> list[str]:
    """The plan of a spec, or of a video that is asked for: work, memory, traffic and time, with units."""
    found = plan(spec, world_size, device, efficiency, request)
    lines = [
        f"plan for {counted(world_size, 'rank')}{f' of {found.device.name}' if found.device else ''}",
        *_work(found),
    ]
    lines += ["", *_memory(found), *_traffic(found), *_time(found)]
    lines += ["", "assumptions", *_bullets(found.notes)]
    if found.device is None:
        lines += ["", *_wrapped(f"--device says whether it fits and how long it takes: {', '.join(NAMES)}")]
    else:
        lines += ["", f"figures of {found.device.name}", *_bullets(_sources(found.device, found.trains))]
    # On a terminal the end is what is read first.
    lines += _verdict(found)
    return lines


def search_lines(found: Search) -> list[str]:
    """The layouts that fit, each with what it needs and what to type."""
    ranks, share = counted(found.world_size, "rank"), f"{found.efficiency:.1%}"
    lines = [
        f"layouts for {ranks} of {found.device} at {share} MFU, fastest first",
        f"  {'of a step':>10} {'exposed':>12} {'each rank':>16}",
    ]
    for one in found.layouts:
        seconds, exposed = _seconds(one.predicted_seconds), _seconds(one.exposed_seconds)
        flags = one.flags or "as it is"
        lines.append(f"{seconds} {exposed} {_size(one.total_bytes_per_rank).rstrip()}  {flags}")
    more = found.fitting - len(found.layouts)
    return [
        *lines,
        f"{counted(found.fitting, 'layout')} fit{f', {more:,} more than are listed' if more else ''}; "
        f"{found.too_large:,} are legal and do not fit",
    ]


def _work(found: Plan) -> list[str]:
    work, trains = found.work, found.trains
    parameters = f"{found.parameters:,} per network"
    if trains and found.trainable_parameters != found.parameters:
        parameters += f", {found.trainable_parameters:,} trained"
    clips = f"{counted(work.samples, 'clip')}, forward and backward"
    whole = f"{_flops(work.step_flops)} for {clips if trains else 'a video, guidance included'}"
    rows = [
        ("parameters", parameters),
        ("tokens", f"{work.tokens:,} per sample"),
        ("forward", f"{_flops(work.forward_flops)} per sample"),
        ("step" if trains else "video", whole),
    ]
    if work.executed_flops != work.step_flops:
        more = work.executed_flops > work.step_flops
        why = "recomputation included" if more else "without gradients of frozen weights"
        rows.append(("executed", f"{_flops(work.executed_flops)}, {why}"))
    parts = {
        part: count
        for part, count in work.flops_by_part.items()
        if count >= _LEAST_SHARE * work.forward_flops
    }
    if rest := work.forward_flops - sum(parts.values()):
        parts["all else"] = rest
    scale, unit = _unit(work.forward_flops)
    return [
        *(f"  {name:<12} {text}" for name, text in rows),
        "",
        "forward pass of one sample",
        *(
            f"  {_words(part):<28} {_of(count, scale):>10} {unit} {100 * count / work.forward_flops:6.1f} %"
            for part, count in parts.items()
        ),
    ]


def _memory(found: Plan) -> list[str]:
    memory = found.memory
    rows = [(_words(name), size) for name, size in memory.bytes.items() if size]
    others = [phase for phase in memory.phases if phase != memory.fullest]
    lines = [
        f"memory of each rank while {memory.fullest}",
        *(f"  {name:<28} {_size(size)}" for name, size in rows),
        f"  {'total':<28} {_size(memory.total)}",
        *(f"  {'while ' + phase:<28} {_size(sum(memory.phases[phase].values()))}" for phase in others),
        *(f"  {_words(name) + ', on the host':<28} {_size(size)}" for name, size in memory.host.items()),
    ]
    if by_mode := memory.activations_by_recompute:
        modes = ", ".join(f"{mode} {_size(size).strip()}" for mode, size in by_mode.items())
        lines += ["", "activations by recompute mode", f"  {modes}"]
    return lines


def _traffic(found: Plan) -> Iterator[str]:
    if not found.traffic:
        return
    yield from ("", f"traffic of each rank per {'step' if found.trains else 'video'}")
    for flow in found.traffic:
        over = "host" if flow.span == 0 else "links" if flow.span <= RANKS_PER_NODE else "network"
        yield f"  {_words(flow.name):<28} {_size(flow.bytes)}  {over}"
    if kinds := collectives(found.traffic):
        yield from ("", "the same by kind of operation among ranks")
    for kind, total in kinds.items():
        share = total["hideable_bytes"] / total["bytes"]
        yield (
            f"  {kind:<28} {_size(total['bytes'])}  in {counted(total['messages'], 'message')}, "
            f"{share:.0%} hideable"
        )


def _time(found: Plan) -> Iterator[str]:
    times, device = found.timing, found.device
    if times is None or device is None or found.efficiency is None:
        return
    peak = device.peak_flops(found.work.dtype, found.work.allow_tf32)
    yield from ("", f"time of one {'step' if found.trains else 'video'}")
    by = "traffic" if times.traffic > times.computation else "computation"
    rows = [("floor", times.floor, f"bound by {by}, all overlapped")]
    if times.kernels is not None:
        mfu = found.work.step_flops / (times.kernels * found.work.ranks * peak)
        rows.append(("best kernels", times.kernels, f"attention at its own rate: MFU {mfu:.1%}"))
    rows.append(
        ("exposed traffic", times.exposed, f"beside {_seconds(times.hidden).strip()} that computation hides")
    )
    rows.append((f"at {found.efficiency:.1%} MFU", times.at_efficiency, f"of {peak / 1e12:,.4g} TFLOP/s"))
    rows.append(("predicted", times.predicted, "with all that is computed again and exposed"))
    for name, seconds, note in rows:
        yield f"  {name:<16} {_seconds(seconds)}  {note}"


def _verdict(found: Plan) -> Iterator[str]:
    device = found.device
    if device is None:
        return
    yield ""
    if found.fits:
        used = found.memory.total / device.memory_bytes
        yield f"fits: {used:.0%} of {device.memory_bytes / 1e9:.0f} GB, {RESERVE:.0%} kept in reserve"
        return
    yield from _wrapped(f"does not fit: {'; '.join(found.problems)}")
    if found.suggestions:
        yield from ("", "changes that make it fit, the cheapest first, with what each rank then needs")
    for suggestion in found.suggestions:
        yield f"  {suggestion.total_bytes / 1e9:.1f} GB  {suggestion.flags}"


def _sources(device: Device, trains: bool) -> Iterator[str]:
    figures = {
        "bf16_flops": f"{device.bf16_flops / 1e12:,.4g} TFLOP/s in bfloat16",
        "fp32_flops": f"{device.fp32_flops / 1e12:,.4g} TFLOP/s in float32",
        "memory_bytes": f"{device.memory_bytes / 1e9:,.4g} GB",
        "link_bandwidth": f"{(device.link_bandwidth or 0) / 1e9:,.4g} GB/s to ranks of the node",
        "network_bandwidth": f"{(device.network_bandwidth or 0) / 1e9:,.4g} GB/s to other nodes",
        "host_bandwidth": f"{(device.host_bandwidth or 0) / 1e9:,.4g} GB/s to the host",
        "kernels": "rates of kernels",
    }
    if trains:
        figures["train_efficiency"] = f"{device.train_efficiency:.1%} MFU"
    else:
        figures["infer_efficiency"] = f"{device.infer_efficiency:.1%} MFU"
    by_source: dict[str, list[str]] = {}
    for name, figure in figures.items():
        if getattr(device, name) is not None:
            by_source.setdefault(device.sources[name], []).append(figure)
    for source, named in by_source.items():
        yield f"{', '.join(named)}: {source}"


def _bullets(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from textwrap.wrap(text, _WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _unit(flops: int) -> tuple[int, str]:
    """The largest prefix below a number of operations."""
    power, prefix = next((found for found in _FLOP_PREFIXES if flops >= 10 ** found[0]), (0, ""))
    return 10**power, f"{prefix}FLOP"


def _flops(count: int) -> str:
    scale, unit = _unit(count)
    return f"{_of(count, scale)} {unit}"


def _of(count: int, scale: int) -> str:
    """A number of operations in a unit; a count of single ones has no fraction."""
    return f"{count:,}" if scale == 1 else f"{count / scale:,.3f}"


def _size(size: int) -> str:
    return f"{size / 1e9:10,.3f} GB" if size >= 10**9 else f"{size / 1e6:10,.3f} MB"


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:10,.2f} ms"
    return f"{seconds:10,.2f} s " if seconds < 100 else f"{seconds:10,.0f} s "
