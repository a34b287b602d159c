"""Latents and text features that are made once, before the first step, and kept on disk.

A cache is a folder named by what its content follows from: clips and captions, size and frame rate,
autoencoder and text encoder. Its index tells what the encoders' weights were. Each rank makes its share of
the files. A start reads the index alone; a file is checked when it is read, and made again where it is
damaged.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import torch
from torch import Tensor

from mm_config.console import progress, say
from mm_config.content import NUMERICS, Input
from mm_config.durable import discard, place_folder, remove_abandoned, siblings, stage_of, synced_file
from mm_config.options import Locations, RunOptions
from mm_config.schema import Problem, UserError, canonical
from mm_config.specs import DataSpec, TrainSpec
from mm_config.stored import read_json
from mm_data import Bad, Dataset
from mm_train.encoding import Encoding
from mm_train.feature_files import ROWS_PER_FILE, file_name, row_reader, rows_of, write_rows, writing
from mm_train.ranks import Ranks

LATENTS = "latents"
TEXT = "text"
INDEX = "features.json"
NO_INPUTS: Mapping[str, Input] = MappingProxyType({})
"""Of encoders without weights."""
SHOWN = ("start", "frame_interval", "speed_factor", "resize", "interpolation", "flip_share", "captions")
"""Fields of the data that change what is encoded; at their neutral values they are not in its identity."""
_WEIGHTS = ("spec.autoencoder.weights", "spec.text_encoder.weights", "spec.image_encoder.weights")


@attrs.frozen
class Features:
    """What is known of every clip of a dataset."""

    latents_of: Callable[[int], Tensor]
    """`[C, T, H, W]` of the clip at a place in the dataset; zero where it is bad."""
    text_of: Callable[[str], Tensor]
    """`[L, D]` of a caption of the dataset, or of the empty one."""
    bad: tuple[Bad, ...]
    """Clips that can't be read."""


def cached_features(
    spec: TrainSpec,
    dataset: Dataset,
    cache_dir: Path,
    locations: Locations,
    device: torch.device,
    ranks: Ranks,
    inputs: Mapping[str, Input] = NO_INPUTS,
) -> Features:
    """The features of a dataset, made now where no earlier run has made them with the same weights.

    Args:
        spec, cache_dir, locations, device, ranks: Of the training.
        dataset: Its clips, which know their bytes.
        inputs: What the training is made of.

    Raises:
        UserError: An encoder's weights can't be found, a caption is too long for the text encoder, or the
            cache can't be written; also where a damaged file is read and made again.
    """
    identity = feature_identity(spec, dataset)
    folder = features_folder(identity, cache_dir)
    encoding = Encoding(spec, dataset, locations, device)
    weights = {path: one for path, one in inputs.items() if path in _WEIGHTS}
    if ranks.on_first(lambda: _bad_clips(folder, weights)) is None:
        if folder.exists():
            why = "is damaged" if _index(folder) is None else "was made with other weights"
            say(f"{folder} {why} and made again")
        _make(encoding, identity, folder, ranks, weights)
    bad = ranks.on_first(lambda: _bad_clips(folder, weights))
    return _features(encoding, folder, [Bad(**one) for one in bad])


def recorded_contents(spec: TrainSpec, dataset: Dataset, options: RunOptions) -> dict[str, Input]:
    """What the encoders' weights were that made a dataset's features, by canonical path of the field."""
    folder = features_folder(feature_identity(spec, dataset), options.cache_dir)
    listed = (_index(folder) or {}).get("weights", {})
    return {path: Input(**one) for path, one in listed.items()}


def features_folder(identity: dict[str, Any], cache_dir: Path) -> Path:
    """Where the features of that identity lie, once they are made."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return cache_dir / "features" / key[:32]


def feature_identity(spec: TrainSpec, dataset: Dataset) -> dict[str, Any]:
    """Everything that latents and text features follow from, as JSON."""
    data = spec.data
    assert dataset.in_order, "features follow from the bytes of the clips"
    # Rounded products make other features; caches of exact ones keep the name that they had before.
    rounded = {"allow_tf32": True} if spec.precision.allow_tf32 else {}
    defaults = attrs.fields_dict(DataSpec)
    shown = {
        name: canonical(value) for name in SHOWN if (value := getattr(data, name)) != defaults[name].default
    }
    return {
        "v": 3,
        "numerics": NUMERICS,
        **rounded,
        **shown,
        "clips": dataset.in_order,
        "frames": [data.num_frames, data.height, data.width, data.fps],
        "autoencoder": canonical(spec.autoencoder),
        "text_encoder": canonical(spec.text_encoder),
    }


def _features(encoding: Encoding, folder: Path, bad: list[Bad]) -> Features:
    """The features in a folder; what is damaged there is made again by encoders built for it alone."""
    count = len(encoding.dataset.records)
    row_of = {caption: row for row, caption in enumerate(encoding.captions)}

    def make_latents(file: int) -> Tensor:
        latents, now_bad = encoding.clip_encoder()(rows_of(file, count))
        known = {one.index for one in bad}
        lost = [one for one in now_bad if one.index not in known]
        if lost:
            raise UserError(
                Problem(one.path, f"could be read when features were made; {one.stage}: {one.reason}")
                for one in lost
            )
        return latents

    def make_text(file: int) -> Tensor:
        return encoding.caption_encoder()(rows_of(file, len(row_of)))

    text = row_reader(folder, TEXT, make_text)
    return Features(
        latents_of=row_reader(folder, LATENTS, make_latents),
        text_of=lambda caption: text(row_of[caption]),
        bad=tuple(bad),
    )


def _make(
    encoding: Encoding, identity: dict[str, Any], folder: Path, ranks: Ranks, weights: Mapping[str, Input]
) -> None:
    """Encodes everything into a folder beside the place and renames it when it is whole."""
    staged = Path(ranks.share(str(stage_of(folder))))

    def make_text() -> None:
        with writing(staged):
            remove_abandoned(siblings(folder))
            staged.mkdir(parents=True)
        _make_text(encoding, staged)

    def complete(bad: list[dict[str, Any]]) -> None:
        with writing(staged):
            listed = {path: attrs.asdict(one) for path, one in weights.items()}
            index = {"identity": identity, "bad": bad, "weights": listed}
            with synced_file(staged / INDEX) as file:
                file.write(json.dumps(index, ensure_ascii=False).encode())
            _put(staged, folder, weights)

    try:
        # Captions first: one that is too long is found before hours of decoding.
        ranks.on_first(make_text)
        mine = ranks.together(lambda: _make_latents(encoding, staged, ranks))
        bad = [one for part in ranks.gather([attrs.asdict(one) for one in mine]) for one in part]
        ranks.on_first(lambda: complete(bad))
    finally:
        if ranks.is_first:
            shutil.rmtree(staged, ignore_errors=True)


def _make_text(encoding: Encoding, staged: Path) -> None:
    encode, count = encoding.caption_encoder(), len(encoding.captions)
    for file in range(math.ceil(count / ROWS_PER_FILE)):
        write_rows(staged / file_name(TEXT, file), encode(rows_of(file, count)))


def _make_latents(encoding: Encoding, staged: Path, ranks: Ranks) -> list[Bad]:
    """Writes this rank's files of latents; returns the clips that could not be read."""
    encode, count = encoding.clip_encoder(), len(encoding.dataset.records)
    mine = range(ranks.rank, math.ceil(count / ROWS_PER_FILE), ranks.world_size)
    own_clips = sum(len(rows_of(file, count)) for file in mine)
    bad: list[Bad] = []
    with progress("encode clips", own_clips, unit="clip", every=128) as bar:
        for file in mine:
            latents, unreadable = encode(rows_of(file, count))
            write_rows(staged / file_name(LATENTS, file), latents)
            bad += unreadable
            bar.advance(len(latents))
    return bad


def _put(staged: Path, folder: Path, weights: Mapping[str, Input]) -> None:
    """Gives a whole cache its name; a damaged or other one there gives way, an equal one stays."""
    try:
        if folder.exists() and _bad_clips(folder, weights) is None:
            discard(folder)
        place_folder(staged, folder)
    except OSError:
        if _bad_clips(folder, weights) is None:
            raise


def _bad_clips(folder: Path, weights: Mapping[str, Input]) -> list[dict[str, Any]] | None:
    """The clips that can't be read, as a cache's index lists them; None where there is no whole index, or
    its features were made with other weights."""
    if (index := _index(folder)) is None:
        return None
    made_with: dict[str, Any] = index["weights"]
    digests = {path: one["digest"] for path, one in made_with.items()}
    return index["bad"] if digests == {path: one.digest for path, one in weights.items()} else None


def _index(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = read_json(folder / INDEX)
        return found if found.keys() >= {"bad", "weights"} else None
    except (ValueError, AttributeError):
        return None
