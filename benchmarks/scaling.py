"""What a step of each layout moves: counted on 2 and 4 gloo ranks, predicted for 8 to 1,024.

    python -m benchmarks.scaling [--predicted-only]

The counted steps are of a small network on this machine, by the functions that the tests count with. The
predicted ones are of Wan2.1-T2V-14B in bfloat16 at 81 frames of 480 x 832, one clip for each group of ranks
that shares one, recomputed whole. Efficiency is the share of a step in which ranks do not wait for traffic,
at the bandwidths of links and network that the device's documents give.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mm_config import replace
from mm_config.families import wan21
from mm_config.planning.costs import collectives
from mm_config.planning.devices import DEVICES, timing
from mm_config.planning.traffic import train_traffic
from mm_config.planning.training import train_work
from mm_config.specs import DataSpec, Dtype, ManifestSpec, PrecisionSpec, Recompute, ScheduleSpec, TrainSpec

LAYOUTS: Mapping[str, Mapping[str, int]] = {
    "fsdp": {},
    "hsdp 8": {"fsdp.shard_size": 8},
    "ulysses 8": {"parallel.ulysses": 8},
    "ring 8": {"parallel.ring": 8},
    "ulysses 4 x ring 2": {"parallel.ulysses": 4, "parallel.ring": 2},
    "tensor 8": {"parallel.tensor": 8},
    "tensor 2 x ulysses 4": {"parallel.tensor": 2, "parallel.ulysses": 4},
}
WORLDS = (8, 64, 256, 1024)
ON = ("h200", "atlas-a2")


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--predicted-only", action="store_true")
    if not parser.parse_args().predicted_only:
        for ranks in (2, 4):
            _print_counted(ranks)
    _print_predicted()


def _print_counted(ranks: int) -> None:
    from tests.mm_train.layouts.cells import LAYOUTS as SMALL
    from tests.mm_train.layouts.counting import moved_in_a_step
    from tests.mm_train.layouts.pool import Pool
    from tests.mm_train.layouts.test_traffic import planned, spec_of

    print(f"| {ranks} ranks, counted | kind | messages | bytes | planned bytes |\n|---|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(moved_in_a_step, Path(folder), ranks)
        for layout in SMALL:
            spec = spec_of(layout)
            if ranks % (spec.parallel.ranks_per_sample * (spec.fsdp.shard_size or 1)):
                continue
            moved, expected = pool.ask(spec)[0][0], planned(spec, ranks)
            for kind in sorted({kind for kind, _ in moved}):
                messages, size = moved[kind, "messages"], moved[kind, "bytes"]
                print(f"| {layout} | {kind} | {messages} | {size:,} | {expected[kind, 'bytes']:,} |")
        pool.close()


def _print_predicted() -> None:
    heads = " | ".join(f"{name}: step, efficiency" for name in ON)
    print(f"\n| ranks | layout | messages | GB by kind | {heads} |\n|--:|---|--:|---|{'--:|' * len(ON)}")
    for world in WORLDS:
        for layout, fields in LAYOUTS.items():
            spec = _predicted(world, fields)
            flows = train_traffic(spec, world)
            kinds = collectives(flows)
            moved = ", ".join(f"{kind} {total['bytes'] / 1e9:.1f}" for kind, total in kinds.items())
            messages = sum(total["messages"] for total in kinds.values())
            cells = []
            for name in ON:
                device = DEVICES[name]
                times = timing(train_work(spec, world), flows, device, device.train_efficiency)
                cells.append(f"{times.predicted:.1f} s, {1 - times.exposed / times.predicted:.0%}")
            print(f"| {world:,} | {layout} | {messages:,} | {moved} | {' | '.join(cells)} |")


def _predicted(world: int, fields: Mapping[str, int]) -> TrainSpec:
    spec = wan21.T2V_14B.train(
        data=DataSpec(dataset=ManifestSpec(name="clips"), batch_size=world),
        schedule=ScheduleSpec(steps=1),
        precision=PrecisionSpec(compute=Dtype.BFLOAT16),
    )
    spec = replace(spec, {**fields, "recompute.mode": Recompute.FULL})
    return replace(spec, "data.batch_size", world // spec.parallel.ranks_per_sample)


if __name__ == "__main__":
    main()
