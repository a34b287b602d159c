"""What a network makes of the sizes of clips, and the plan of its batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from mm_config import rules
from mm_config.specs import TrainSpec
from mm_data import Asked, Dataset, Grid, Plan, Shape, make_plan


def plan_of(spec: TrainSpec, dataset: Dataset, cache_dir: Path) -> Plan:
    """What each step trains on, of sizes that the network takes.

    Raises:
        UserError: As `make_plan`.
    """
    step, first = rules.frame_steps(spec.model, spec.autoencoder)
    grid = Grid(step, first, math.lcm(*rules.cells(spec.model, spec.autoencoder)))

    def tokens_of(shape: Shape) -> int:
        return spec.model.tokens(latent_shape(spec, shape)[1:])

    return make_plan(
        spec.data, dataset, spec.seed, tokens_of=tokens_of, grid=grid, store=cache_dir / "buckets"
    )


def asks_of(plan: Plan, dataset: Dataset) -> Callable[[], Iterator[Asked]]:
    """All clips that a plan takes, each in its shape, as often as that is called; they draw nothing yet."""

    def asks() -> Iterator[Asked]:
        for bucket in plan.buckets:
            for members in bucket.members:
                for place in members.indices:
                    index = members.offset + int(place)
                    yield Asked(dataset.records[index], index, bucket.shape, draw="")

    return asks


def latent_shape(spec: TrainSpec, shape: Shape) -> tuple[int, int, int, int]:
    """`(C, T, H, W)` of the latents of a clip."""
    latent = spec.autoencoder.latent_shape(shape.num_frames, shape.height, shape.width)
    return (spec.autoencoder.latent_channels, *latent)
