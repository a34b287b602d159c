"""What a training trains on: its clips, the plan of its batches, and what loads and encodes them."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch.distributed.device_mesh import init_device_mesh

import mm_data
from mm_config.content import Input
from mm_config.options import RunOptions
from mm_config.specs import TrainSpec
from mm_data import Dataset, Plan
from mm_models.ranks import Ranks
from mm_train.batches import asks_of
from mm_train.content import with_content
from mm_train.features.opening import open_features
from mm_train.sources import Source, source_of


def prepared(spec: TrainSpec, options: RunOptions, ranks: Ranks) -> tuple[Dataset, Input]:
    """Rank 0 renders what has to be rendered, and hashes the clips; then every rank reads the manifest."""

    def prepare() -> Dataset:
        return mm_data.prepare(
            spec.data.dataset,
            cache_dir=options.cache_dir,
            locations=options.locations,
            isolated=spec.data.isolated,
        )

    made: list[Dataset] = []
    if ranks.world_size > 1:
        ranks.on_first(lambda: made.append(prepare()))
    dataset = ranks.together(lambda: made[0] if made else prepare())
    content = ranks.on_first(
        lambda: attrs.asdict(mm_data.dataset_input(spec.data.dataset, dataset, options.contents_dir))
    )
    data = Input(**content)
    return with_content(dataset, data), data


def planned(spec: TrainSpec, dataset: Dataset, options: RunOptions, ranks: Ranks) -> Plan:
    """Rank 0 sorts the clips where nobody has; every rank plans the same."""

    def make() -> Plan:
        return mm_data.plan_of(spec, dataset, options.cache_dir)

    if ranks.world_size > 1:
        ranks.on_first(lambda: bool(make()))
    return ranks.together(make)


def opened_source(
    spec: TrainSpec,
    options: RunOptions,
    dataset: Dataset,
    plan: Plan,
    picked: torch.device,
    ranks: Ranks,
    inputs: Mapping[str, Input],
) -> Source:
    """What loads and encodes the clips of a plan; features that are kept are made before, by all ranks."""
    asks = asks_of(plan, dataset)
    features = open_features(spec, dataset, asks, options, picked, ranks, inputs)
    shares = spec.runtime.shard_encoders and ranks.grouped
    every = init_device_mesh(picked.type, (ranks.world_size,)) if shares else None
    return ranks.together(lambda: source_of(spec, options.locations, picked, features, every))
