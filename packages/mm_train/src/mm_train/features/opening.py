"""What a training looks up instead of encoding it: opened, or made, before the first step."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch

from mm_config.content import Input
from mm_config.options import RunOptions
from mm_config.specs import TrainSpec
from mm_data import Bad, Dataset, Store, clip_digests
from mm_models.ranks import Ranks
from mm_train.features.cached import cached, read_set, set_file, stores_of
from mm_train.features.encoding import Encoders
from mm_train.features.kinds import (
    cached_kinds,
    draws_sample,
    kept_kinds,
    precomputed_kinds,
    weights_field,
)
from mm_train.features.looking_up import Features, Remake
from mm_train.features.making import Asks, Names
from mm_train.features.precomputed import bad_clips, located, precomputed_input


def open_features(
    spec: TrainSpec,
    dataset: Dataset,
    asks: Asks,
    options: RunOptions,
    device: torch.device,
    ranks: Ranks,
    inputs: Mapping[str, Input],
) -> Features | None:
    """The features that a training looks up, made now where no earlier run has made them; None for none.

    Args:
        spec, options, device, ranks: Of the training.
        dataset: Its clips, which know their bytes.
        asks: Its clips as the plan asks for them.
        inputs: What the training is made of.

    Raises:
        UserError: Precomputed features are not there, damaged or others than the spec asks for, or lack
            clips; an encoder's weights can't be found, a caption is too long for the text encoder, or the
            cache can't be written; also where a damaged shard is read and can't be made again.
    """
    if not kept_kinds(spec):
        return None
    own = stores_of(options.cache_dir / "features", spec, cached_kinds(spec), inputs)
    stores: dict[str, Store] = dict(own)
    before = None
    if precomputed_kinds(spec):
        before = ranks.together(lambda: located(spec, options.locations))
        stores |= {kind: before.stores[kind] for kind in precomputed_kinds(spec)}
    contents = clip_digests(dataset)
    names = Names(spec.data, contents, {kind: store.made_with for kind, store in stores.items()})
    bad: dict[int, Bad] = {}
    if before is not None:
        found = before
        listed = ranks.on_first(
            lambda: [attrs.asdict(one) for one in bad_clips(found, asks(), names).values()]
        )
        bad |= {one["index"]: Bad(**one) for one in listed}
    encoders = Encoders(spec, options.locations, device)
    if own:
        bad |= cached(spec, dataset, asks, names, own, encoders, ranks, options.cache_dir, inputs)
        stores |= stores_of(options.cache_dir / "features", spec, own, inputs)
    return Features(
        names,
        stores,
        bad,
        sample=draws_sample(spec),
        max_tokens=spec.text_encoder.max_tokens,
        remake=Remake(frozenset(own), asks, names, stores, encoders),
    )


def kept_before(spec: TrainSpec, dataset: Dataset, options: RunOptions) -> frozenset[str]:
    """The kinds of features that need no encoder any more."""
    own = cached_kinds(spec)
    made = own and set_file(spec, dataset, own, options.cache_dir).is_file()
    return precomputed_kinds(spec) | (own if made else frozenset())


def encoder_contents(
    spec: TrainSpec, dataset: Dataset, options: RunOptions, here: Mapping[str, Input]
) -> dict[str, Input]:
    """What encodes, and what is looked up instead, as inputs by canonical path.

    Args:
        spec, dataset, options: Of the training.
        here: What the encoders' weights are on this machine. Where they are not, what was made of them tells
            it; where features were computed before, it alone does.

    Raises:
        UserError: As `precomputed_input`.
    """
    before = precomputed_input(spec, options.locations, here)
    unused = {weights_field(kind) for kind in precomputed_kinds(spec)}
    own = cached_kinds(spec)
    known = read_set(set_file(spec, dataset, own, options.cache_dir)) if own else None
    recorded = known.weights if known else {}
    return {**recorded, **{path: one for path, one in here.items() if path not in unused}, **before}
