"""What a training is made of: its data, the weights that it starts from, its encoders' weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

import mm_data
from mm_config.content import Input
from mm_config.options import RunOptions
from mm_config.running import checked_inputs, resolve_weights
from mm_config.runs import read_inputs, resumed
from mm_config.schema import Problem, UserError
from mm_config.specs import RandomWeights, TrainSpec, Weights
from mm_data import Dataset, dataset_input
from mm_models import encoder_inputs, weights_input
from mm_models.ranks import Ranks, differences
from mm_train.adapters import ADAPTER_START, START
from mm_train.features.kinds import FIELDS, encoders_of
from mm_train.features.opening import encoder_contents

DATASET = "spec.data.dataset"


def inputs(spec: TrainSpec, options: RunOptions) -> dict[str, Input]:
    """What a run of the spec would be made of here, by canonical path; nothing is trained.

    Raises:
        UserError: Something that the spec names is not here.
    """
    dataset = mm_data.prepare(
        spec.data.dataset,
        cache_dir=options.cache_dir,
        locations=options.locations,
        isolated=spec.data.isolated,
    )
    data = dataset_input(spec.data.dataset, dataset, options.contents_dir)
    places = {path: resolve_weights(one, options, False, path) for path, one in _weights_of(spec).items()}
    return inputs_of(spec, options, with_content(dataset, data), data, places)


def agree_on_data(dataset: Dataset, ranks: Ranks) -> None:
    """Stops where ranks read other lists of clips. Only the first reads the clips' bytes.

    Raises:
        UserError: The manifest of a rank names other clips or captions.
    """
    if problems := differences({DATASET: f"{len(dataset.records)} clips, {dataset.order_key[:12]}"}, ranks):
        raise UserError(problems)


@attrs.frozen
class Made:
    """What a run that starts or goes on is made of."""

    inputs: dict[str, Input]
    """By canonical path of the field."""
    keeps_order: bool
    """Whether a run that goes on keeps the order of samples that it began with."""


def agreed_inputs(
    spec: TrainSpec,
    options: RunOptions,
    dataset: Dataset,
    data: Input,
    weights: Mapping[str, Path | RandomWeights],
    ranks: Ranks,
) -> Made:
    """What the run is made of, on every rank; the first looks. The arguments are those of `inputs_of`.

    Raises:
        UserError: A name met another content before, or the run that goes on did, or its order of samples is
            another, and that is not accepted; or a digest that the spec asks for is another.
    """

    def look() -> dict[str, Any]:
        run = resumed(spec, options)
        earlier = None if run is None else read_inputs(run.path)
        found = checked_inputs(inputs_of(spec, options, dataset, data, weights), options, earlier, run)
        in_order = earlier[DATASET].details["in_order"] if earlier else None
        keeps_order = options.accept_content or in_order == dataset.in_order
        if earlier and not keeps_order and earlier[DATASET].order_key != dataset.order_key:
            how = options.name_of("accept_content")
            why = "the samples come in another order than when the run was started"
            raise UserError(Problem(DATASET, f"{why}; {how} goes on in the order that it began with"))
        return {
            "inputs": {path: attrs.asdict(one) for path, one in found.items()},
            "keeps_order": keeps_order,
        }

    seen = ranks.on_first(look)
    return Made({path: Input(**one) for path, one in seen["inputs"].items()}, seen["keeps_order"])


def with_content(dataset: Dataset, data: Input) -> Dataset:
    """A dataset that knows its clips' bytes."""
    return attrs.evolve(dataset, in_order=data.details["in_order"])


def inputs_of(
    spec: TrainSpec,
    options: RunOptions,
    dataset: Dataset,
    data: Input,
    weights: Mapping[str, Path | RandomWeights],
) -> dict[str, Input]:
    """What a training is made of, by canonical path.

    Args:
        spec: The training.
        options: Where releases, features and digests are.
        dataset: Its clips, which know their bytes.
        data: The same as an input.
        weights: The first weights of what is trained, and the network beside which adapters are, by canonical
            path; without those that a run which goes on has recorded.
    """
    here = encoder_inputs({FIELDS[kind]: one for kind, one in encoders_of(spec).items()}, options)
    found = {DATASET: data, **encoder_contents(spec, dataset, options, here)}
    said = _weights_of(spec)
    for path, place in weights.items():
        if one := weights_input(said[path], place, options.contents_dir, path):
            found[path] = one
    return found


def _weights_of(spec: TrainSpec) -> dict[str, Weights]:
    """What a spec says of the weights that it starts from, by canonical path."""
    adapter = spec.lora and spec.lora.start_from
    return {START: spec.start_from, **({} if adapter is None else {ADAPTER_START: adapter})}
