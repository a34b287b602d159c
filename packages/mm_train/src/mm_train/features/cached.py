"""The cache of a training: features that are made before the first step where no earlier run has made them.

Below `features` of the cache folder lies a store for each encoder with its weights, which all datasets share,
and in `sets` a file for each dataset: that all its features were made, by which weights, and which clips
can't be read. A start reads that file alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.console import say
from mm_config.content import Input
from mm_config.durable import staged_file
from mm_config.schema import canonical
from mm_config.specs import TrainSpec
from mm_config.stored import read_json
from mm_data import Bad, Dataset, Store, digest_of, file_state
from mm_data import writing_features as writing
from mm_models.ranks import Ranks
from mm_train.features.encoding import Encoders
from mm_train.features.kinds import OF_CLIPS, TEXT, encoders_of, made_with, weights_field, weights_of
from mm_train.features.making import Asks, Names, captions_of, make_captions, make_clips

_BESIDE_SET = (
    "dataset",
    "batch_size",
    "caption_dropout",
    "frame_dropout",
    "max_bad_share",
    "max_bad_clips",
    "order",
    "tails",
    "tokens_per_batch",
    "shuffle_block",
    "precomputed",
)
"""Fields of the data that say nothing of which features there are."""


@attrs.frozen
class Set:
    """A dataset's features, as they were made."""

    bad: tuple[Bad, ...]
    """Clips that can't be read."""
    weights: dict[str, Input]
    """What the encoders' weights were, by canonical path of the field."""


def stores_of(
    root: Path, spec: TrainSpec, kinds: Iterable[str], inputs: Mapping[str, Input]
) -> dict[str, Store]:
    """The stores of some kinds below a folder, by kind."""
    made = {kind: made_with(spec, kind, weights_of(inputs, kind)) for kind in kinds}
    return {kind: Store(root / f"{kind}-{digest_of(one)[:32]}", one) for kind, one in made.items()}


def set_file(spec: TrainSpec, dataset: Dataset, kinds: Iterable[str], cache_dir: Path) -> Path:
    """The file that tells that all features of a dataset were made."""
    assert dataset.in_order, "features follow from the bytes of the clips"
    fields: Any = canonical(spec.data)
    identity = {
        "v": 4,
        "clips": dataset.in_order,
        # Which of the short clips are left out follows from the seed.
        "seed": spec.seed if spec.data.min_num_frames is not None else None,
        "data": {name: value for name, value in fields.items() if name not in _BESIDE_SET},
        "made_with": [
            made_with(spec, kind, None) | {"named": canonical(encoders_of(spec)[kind])}
            for kind in sorted(kinds)
        ],
    }
    return cache_dir / "features" / "sets" / f"{digest_of(identity)[:32]}.json"


def read_set(file: Path) -> Set | None:
    """What a set's file tells; None where there is no whole one."""
    try:
        found = read_json(file)
        bad = tuple(Bad(**{**one, "file": file_state(Path(one["path"]))}) for one in found["bad"])
        return Set(bad, {path: Input(**one) for path, one in found["weights"].items()})
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


def cached(
    spec: TrainSpec,
    dataset: Dataset,
    asks: Asks,
    names: Names,
    stores: Mapping[str, Store],
    encoders: Encoders,
    ranks: Ranks,
    cache_dir: Path,
    inputs: Mapping[str, Input],
) -> dict[int, Bad]:
    """Sees to it that a dataset's features are in the cache; returns the clips that can't be read.

    Raises:
        UserError: An encoder's weights can't be found, a caption is too long for the text encoder, or the
            cache can't be written.
    """
    file = set_file(spec, dataset, stores, cache_dir)
    weights = {path: inputs[path] for path in map(weights_field, sorted(stores)) if path in inputs}

    def bad_clips() -> list[dict[str, Any]] | None:
        known = read_set(file)
        if known is None or _digests(known.weights) != _digests(weights):
            return None
        return [attrs.asdict(one) for one in known.bad]

    if (bad := ranks.on_first(bad_clips)) is None:
        if ranks.is_first and file.exists():
            why = "is damaged" if read_set(file) is None else "was made with other weights"
            say(f"{file} {why} and made again")
        made = make_all(asks, len(dataset.records), names, stores, encoders, ranks)
        bad = [attrs.asdict(one) for one in made]

        def complete() -> None:
            listed = {path: attrs.asdict(one) for path, one in weights.items()}
            with writing(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                with staged_file(file) as staged:
                    staged.write_text(json.dumps({"bad": bad, "weights": listed}), "utf-8")

        ranks.on_first(complete)
    return {one["index"]: Bad(**one) for one in bad}


def make_share(
    asks: Asks,
    count: int,
    names: Names,
    stores: Mapping[str, Store],
    encoders: Encoders,
    share: tuple[int, int],
) -> list[Bad]:
    """Makes what is not there yet of a share's captions and clips; returns the clips that can't be read.

    The arguments are those of `make_captions` and `make_clips`.
    """
    if TEXT in stores:
        make_captions(captions_of(asks(), names), names, stores[TEXT], encoders, share)
    if not any(kind in stores for kind in OF_CLIPS):
        return []
    every = names.variants(asks())
    return make_clips(every, count * names.data.variants, names, stores, encoders, share)


def make_all(
    asks: Asks, count: int, names: Names, stores: Mapping[str, Store], encoders: Encoders, ranks: Ranks
) -> list[Bad]:
    """Makes what is not there yet of each clip's and caption's features; each rank its share.

    Captions come first: one that is too long is found before hours of decoding. Whatever was written stays
    where a process is killed, and is not made again.

    Returns:
        The clips that can't be read, on every rank.
    """
    share = (ranks.rank, ranks.world_size)
    text = {kind: store for kind, store in stores.items() if kind == TEXT}
    rest = {kind: store for kind, store in stores.items() if kind != TEXT}

    def seal() -> None:
        for store in stores.values():
            store.seal()

    ranks.together(lambda: make_share(asks, count, names, text, encoders, share))
    encoders.forget()  # A text encoder may fill a device.
    mine = ranks.together(lambda: make_share(asks, count, names, rest, encoders, share))
    encoders.forget()
    ranks.on_first(seal)
    found = [Bad(**one) for part in ranks.gather([attrs.asdict(one) for one in mine]) for one in part]
    return sorted({one.index: one for one in found}.values(), key=lambda one: one.index)


def _digests(weights: Mapping[str, Input]) -> dict[str, str]:
    return {path: one.digest for path, one in weights.items()}
