"""Latents and text features that are made once, before the first step, and kept on disk.

A cache is a folder named by what its content follows from: files, size and frame rate of the clips,
autoencoder and text encoder. Each rank makes its share of the files. A start reads the cache's index alone;
a file is checked when it is read, and made again where it is damaged.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from mm_config.console import progress, say
from mm_config.durable import place_folder, stage_of
from mm_config.options import Locations
from mm_config.schema import Problem, UserError, canonical
from mm_config.specs import TrainSpec, Umt5TextEncoderSpec
from mm_data import Bad, Dataset
from mm_train.encoding import Encoding
from mm_train.feature_files import ROWS_PER_FILE, file_name, row_reader, rows_of, write_rows, writing
from mm_train.ranks import Ranks

LATENTS = "latents"
TEXT = "text"
INDEX = "features.json"


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
) -> Features:
    """The features of a dataset, made now where no earlier run has made them.

    Raises:
        UserError: An encoder's weights can't be found, a caption is too long for the text encoder, or the
            cache can't be written; also where a damaged file is read and made again.
    """
    identity = feature_identity(spec, dataset)
    folder = features_folder(identity, cache_dir)
    encoding = Encoding(spec, dataset, locations, device)
    if ranks.on_first(lambda: _bad_clips(folder)) is None:
        if folder.exists():
            say(f"{folder} is damaged and made again")
        _make(encoding, identity, folder, ranks)
    return _features(encoding, folder, [Bad(**one) for one in ranks.on_first(lambda: _bad_clips(folder))])


def features_folder(identity: dict[str, Any], cache_dir: Path) -> Path:
    """Where the features of that identity lie, once they are made."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return cache_dir / "features" / key[:32]


def feature_identity(spec: TrainSpec, dataset: Dataset) -> dict[str, Any]:
    """Everything that latents and text features follow from, as JSON."""
    data = spec.data
    # Rounded products make other features; caches of exact ones keep the name that they had before.
    rounded = {"allow_tf32": True} if spec.precision.allow_tf32 else {}
    # Before ftfy the same captions gave other tokens, so caches from then are not these.
    cleaned = {"cleaning": "ftfy"} if isinstance(spec.text_encoder, Umt5TextEncoderSpec) else {}
    return {
        "v": 2,
        **rounded,
        **cleaned,
        "dataset": dataset.digest,
        "files": _digest_of_clips(dataset),
        "frames": [data.num_frames, data.height, data.width, data.fps],
        "autoencoder": canonical(spec.autoencoder),
        "text_encoder": canonical(spec.text_encoder),
    }


def _digest_of_clips(dataset: Dataset) -> str:
    """Size and time of change of each clip: a repaired or rendered-again file gets features of its own."""
    digest = hashlib.sha256()
    for record in dataset.records:
        try:
            status = record.path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(b"missing\n")
    return digest.hexdigest()


def _features(encoding: Encoding, folder: Path, bad: list[Bad]) -> Features:
    """The features in a folder; what is damaged there is made again by encoders built for it alone."""
    count = len(encoding.dataset.records)
    row_of = {caption: row for row, caption in enumerate(encoding.captions)}

    def make_latents(file: int) -> Tensor:
        latents, now_bad = encoding.clip_encoder()(rows_of(file, count))
        lost = [one for one in now_bad if one not in bad]
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


def _make(encoding: Encoding, identity: dict[str, Any], folder: Path, ranks: Ranks) -> None:
    """Encodes everything into a folder beside the place and renames it when it is whole."""
    staged = Path(ranks.share(str(stage_of(folder))))

    def make_text() -> None:
        with writing(staged):
            staged.mkdir(parents=True)
        _make_text(encoding, staged)

    def complete(bad: list[dict[str, Any]]) -> None:
        with writing(staged):
            index = {"identity": identity, "bad": bad}
            (staged / INDEX).write_text(json.dumps(index, ensure_ascii=False), "utf-8")
            _put(staged, folder)

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


def _put(staged: Path, folder: Path) -> None:
    """Gives a whole cache its name; a damaged one there gives way, one that another run made stays."""
    if folder.exists() and _bad_clips(folder) is None:
        shutil.rmtree(folder)
    try:
        place_folder(staged, folder)
    except OSError:
        if _bad_clips(folder) is None:
            raise


def _bad_clips(folder: Path) -> list[dict[str, Any]] | None:
    """The clips that can't be read, as a cache's index lists them; None where there is no whole index."""
    try:
        return json.loads((folder / INDEX).read_text("utf-8"))["bad"]
    except (OSError, ValueError, KeyError):
        return None
