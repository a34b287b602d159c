"""The plan of a training: of sizes that its network takes, in batches that it can hold."""

from __future__ import annotations

import math
from pathlib import Path

from mm_config import rules
from mm_config.specs import TrainSpec
from mm_data.plan.making import make_plan
from mm_data.plan.plan import Plan
from mm_data.records import Dataset, Shape
from mm_data.transforms.grid import Grid


def plan_of(spec: TrainSpec, dataset: Dataset, cache_dir: Path) -> Plan:
    """What each step trains on, of sizes that the network takes.

    Args:
        spec: The training.
        dataset: What `prepare` returned for its data.
        cache_dir: Where it is kept which clip of a large index is in which bucket.

    Raises:
        UserError: As `make_plan`.
    """
    grid = grid_of(spec)

    def tokens_of(shape: Shape) -> int:
        return spec.model.tokens(spec.autoencoder.latent_shape(shape.num_frames, shape.height, shape.width))

    return make_plan(
        spec.data,
        dataset,
        spec.seed,
        tokens_of=tokens_of,
        grid=grid,
        store=cache_dir / "buckets",
        holdout=0.0 if spec.validation is None else spec.validation.holdout,
    )


def grid_of(spec: TrainSpec) -> Grid:
    """The sizes that the network and the autoencoder of a training take."""
    step, first = rules.frame_steps(spec.model, spec.autoencoder)
    return Grid(step, first, math.lcm(*rules.cells(spec.model, spec.autoencoder)))
