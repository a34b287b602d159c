"""What a training starts from: weights, held against the spec before a run is opened, or a checkpoint."""

from __future__ import annotations

from pathlib import Path

import attrs
from torch import nn

import mm_data
import mm_models
from mm_config.console import say
from mm_config.options import RunOptions
from mm_config.running import resolve_weights
from mm_config.schema import Problem, UserError, concerning
from mm_config.specs import RandomWeights, StartMode, TrainedBy, TrainSpec
from mm_data import Dataset
from mm_models import Use, checkpoint, require_releases, said_otherwise
from mm_models import check_weights as check
from mm_models.ranks import Ranks
from mm_train.adapters import base_digest, find_base, start_adapter
from mm_train.beginning import Start, require_state
from mm_train.features.kinds import FIELDS, TEXT, encoders_of
from mm_train.features.opening import kept_before


def find_start(
    spec: TrainSpec,
    options: RunOptions,
    dataset: Dataset,
    network: nn.Module,
    saved: Path | None,
    ranks: Ranks,
) -> Start:
    """Finds what the training begins with, and the encoders' weights; nothing is loaded.

    Args:
        spec: The training.
        options: Where runs, locations and caches are looked up.
        dataset: Its clips.
        network: On meta, with the adapters beside it that are trained.
        saved: The checkpoint that the run goes on from; None where it has none.
        ranks: All of them call it.

    Raises:
        UserError: As `start_weights` and `adapters.find_base`; on every rank, with the problems of all.
    """
    if saved is None:
        found = ranks.together(lambda: start_weights(spec, options, dataset, network))
    else:
        found = ranks.together(lambda: require_encoders(spec, options, dataset))
    base = ranks.together(lambda: find_base(spec, options, network, found))
    before = saved
    if spec.start_mode is StartMode.WEIGHTS:
        found = found or base
    elif saved is None and isinstance(found, Path):
        before = found
    digest = ranks.on_first(lambda: base_digest(base, options, before))
    adapter = ranks.together(lambda: start_adapter(spec, options, network)) if saved is None else None
    return Start(found, base, digest, adapter)


def start_weights(
    spec: TrainSpec, options: RunOptions, dataset: Dataset, network: nn.Module
) -> Path | RandomWeights:
    """Where the network's first weights are; the encoders' are looked for as well.

    Args:
        spec: The training.
        options: Where runs, locations and caches are looked up.
        dataset: Its clips.
        network: On meta.

    Raises:
        UserError: Weights are nowhere, all of them listed; or the network's don't fit it.
    """
    problems: list[Problem] = []
    found: Path | RandomWeights | None = None
    try:
        require_encoders(spec, options, dataset)
    except UserError as error:
        problems += error.problems
    builds = spec.runtime.build_missing and isinstance(spec.start_from, TrainedBy)
    if not (problems and builds):  # A long training of others comes after what fails at once.
        try:
            found = resolve_weights(spec.start_from, options, spec.runtime.build_missing, "spec.start_from")
        except UserError as error:
            problems += error.problems
    if problems or found is None:
        raise UserError(problems)
    if isinstance(found, Path):
        require_state(spec, found)
        if spec.lora is None or spec.start_mode is StartMode.WEIGHTS:
            with concerning("spec.start_from"):
                check(network, found)
        if not isinstance(spec.start_from, TrainedBy):  # A spec that names the training says what it made.
            use = Use(spec.expert, spec.diffusion.boundary, "spec.diffusion.boundary")
            for told in said_otherwise(found, use):
                say(f"spec.start_from: {found} {told}")
    return found


def require_encoders(spec: TrainSpec, options: RunOptions, dataset: Dataset) -> None:
    """Looks for the weights of encoders; features that were made before need none.

    Raises:
        UserError: Some are nowhere; all of them are listed.
    """
    kept = kept_before(spec, dataset, options)
    needed = {FIELDS[kind]: one for kind, one in encoders_of(spec).items() if kind not in kept}
    require_releases(needed, options.locations)


def require_short_captions(spec: TrainSpec, options: RunOptions, dataset: Dataset) -> None:
    """Looks for captions that the text encoder will refuse; features that were made before need none.

    Raises:
        UserError: There are some; the first are named by the lines of their manifest, the rest are counted.
    """
    if TEXT in kept_before(spec, dataset, options):
        return
    every = (caption for record in dataset.records for caption in mm_data.captions_of(record, spec.data))
    captions = list(dict.fromkeys(every))
    try:
        long = mm_models.too_long(spec.text_encoder, captions, options.locations)
    except UserError:
        return  # What is missing is told together with everything else that is.
    if not long:
        return
    problems = [
        Problem(dataset.place_of(record), f"the caption {mm_models.shown_caption(caption)} has {why}")
        for record in dataset.records
        for caption in mm_data.captions_of(record, spec.data)
        if (why := long.get(caption))
    ]
    raise UserError(mm_data.capped(problems, "spec.text_encoder.max_tokens"))


def in_stored_order(dataset: Dataset, saved: Path) -> Dataset:
    """A dataset whose samples go on in the order that a checkpoint's stream had."""
    return attrs.evolve(dataset, order_key=checkpoint.read_state(saved)["data"]["digest"])
