"""A plan as lines that a person reads."""

from __future__ import annotations

from mm_config.plan import plan
from mm_config.specs.kinds import RootSpec
from mm_config.specs.train import TrainSpec


def plan_lines(spec: RootSpec, world_size: int) -> list[str]:
    """The plan of a spec: its numbers with units, memory item by item."""
    found = plan(spec, world_size)
    work = "per optimizer step" if isinstance(spec, TrainSpec) else "per video, guidance included"
    ranks = f"{found.world_size} rank{'s' if found.world_size > 1 else ''}"
    items = (*found.bytes_per_rank, ("total", found.total_bytes_per_rank))
    return [
        f"plan for {ranks}",
        f"  {'parameters':<14} {found.parameters:,} per network",
        f"  {'tokens':<14} {found.tokens:,} per sample",
        f"  {'forward':<14} {_flops(found.forward_flops)} per sample",
        f"  {'all':<14} {_flops(found.step_flops)} {work}",
        "bytes per rank (autoencoder and text encoder not counted)",
        *(f"  {name:<14} {_gib(size)}" for name, size in items),
    ]


def _flops(count: int) -> str:
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if count >= 10**power:
            return f"{count / 10**power:.3f} {prefix}FLOP"
    return f"{count} FLOP"


def _gib(size: int) -> str:
    return f"{size / 2**30:10.3f} GiB" if size >= 2**30 else f"{size / 2**20:10.3f} MiB"
