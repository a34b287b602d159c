"""Latents and text features that are made once, before the first step, and kept on disk.

A cache is a folder of safetensors named by what its content follows from: files, size and frame rate of the
clips, autoencoder and text encoder. Each rank makes its share of the files; they are read by memory mapping,
after their digests were checked. A damaged cache is made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mm_config.console.output import progress, say
from mm_config.durable.digests import sha256_of
from mm_config.durable.writing import place_folder, stage_of
from mm_config.options.locations import Locations
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.identity import canonical
from mm_config.specs.train import TrainSpec
from mm_data import Bad, BadClip, Clip, Dataset, Record, load_clip, to_model_range
from mm_models import build_autoencoder, build_text_encoder
from mm_train.ranks import Ranks

CLIPS_PER_FILE = 256
CLIPS_PER_ENCODING = 8
CAPTIONS_PER_ENCODING = 64
INDEX = "features.json"
TEXT = "text.safetensors"


@attrs.frozen
class Features:
    """What is known of every clip of a dataset."""

    latents: tuple[Tensor, ...]
    """`[CLIPS_PER_FILE, C, T, H, W]` per file, zero where a clip is bad."""
    text_MLD: Tensor
    """Features of each distinct caption; row 0 is the empty caption."""
    rows: tuple[int, ...]
    """Row of `text_MLD` by the clip's place in the dataset."""
    bad: tuple[Bad, ...]
    """Clips that can't be read."""

    def latents_of(self, index: int) -> Tensor:
        """`[C, T, H, W]` of the clip at a place in the dataset."""
        file, row = divmod(index, CLIPS_PER_FILE)
        return self.latents[file][row]


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
            cache can't be written.
    """
    identity = feature_identity(spec, dataset)
    folder = features_folder(identity, cache_dir)
    if not ranks.on_first(lambda: _is_intact(folder)):
        if folder.exists():
            say(f"{folder} is damaged and made again")
        _make(spec, dataset, identity, folder, locations, device, ranks)
    return ranks.together(lambda: _read(folder, dataset))


def features_folder(identity: dict[str, Any], cache_dir: Path) -> Path:
    """Where the features of that identity lie, once they are made."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return cache_dir / "features" / key[:32]


def feature_identity(spec: TrainSpec, dataset: Dataset) -> dict[str, Any]:
    """Everything that latents and text features follow from, as JSON."""
    data = spec.data
    # Rounded products make other features; caches of exact ones keep the name that they had before.
    rounded = {"allow_tf32": True} if spec.precision.allow_tf32 else {}
    return {
        "v": 1,
        **rounded,
        "dataset": dataset.digest,
        "files": _digest_of_files(dataset),
        "frames": [data.num_frames, data.height, data.width, data.fps],
        "autoencoder": canonical(spec.autoencoder),
        "text_encoder": canonical(spec.text_encoder),
    }


def _digest_of_files(dataset: Dataset) -> str:
    """Size and time of change of each clip: a repaired or rendered-again file gets features of its own."""
    digest = hashlib.sha256()
    for record in dataset.records:
        try:
            status = record.path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(b"missing\n")
    return digest.hexdigest()


def _make(
    spec: TrainSpec,
    dataset: Dataset,
    identity: dict[str, Any],
    folder: Path,
    locations: Locations,
    device: torch.device,
    ranks: Ranks,
) -> None:
    """Encodes everything into a folder beside the place and renames it when it is whole."""
    staged = Path(ranks.share(str(stage_of(folder))))
    captions = distinct_captions(dataset)

    def encode_captions() -> None:
        with _writing(staged):
            staged.mkdir(parents=True)
        _save({"features": _encode_captions(spec, captions, locations, device)}, staged / TEXT)

    def complete(bad: list[dict[str, Any]]) -> None:
        files = {path.name: sha256_of(path) for path in sorted(staged.iterdir())}
        index = {"identity": identity, "captions": captions, "bad": bad, "files": files}
        with _writing(staged):
            (staged / INDEX).write_text(json.dumps(index, ensure_ascii=False), "utf-8")
            _put(staged, folder)

    try:
        # Captions first: one that is too long is found before hours of decoding.
        ranks.on_first(encode_captions)
        bad = ranks.together(lambda: _encode_clips(spec, dataset, staged, locations, device, ranks))
        everywhere = [one for part in ranks.gather([attrs.asdict(one) for one in bad]) for one in part]
        ranks.on_first(lambda: complete(everywhere))
    finally:
        if ranks.is_first:
            shutil.rmtree(staged, ignore_errors=True)


def _put(staged: Path, folder: Path) -> None:
    """Gives a whole cache its name; a damaged one there gives way, one that another run made stays."""
    if folder.exists() and not _is_intact(folder):
        shutil.rmtree(folder)
    try:
        place_folder(staged, folder)
    except OSError:
        if not _is_intact(folder):
            raise


def _is_intact(folder: Path) -> bool:
    """Whether a cache is there and each of its files is what was written."""
    try:
        files: dict[str, str] = json.loads((folder / INDEX).read_text("utf-8"))["files"]
        return all(sha256_of(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError):
        return False


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    with _writing(path):
        save_file(tensors, path)


@contextmanager
def _writing(path: Path) -> Generator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(Problem(str(path), f"the feature cache can't be written: {reason}")) from error


def _encode_clips(
    spec: TrainSpec,
    dataset: Dataset,
    staged: Path,
    locations: Locations,
    device: torch.device,
    ranks: Ranks,
) -> list[Bad]:
    """Writes this rank's files of latents; returns the clips that could not be read."""
    autoencoder = build_autoencoder(spec.autoencoder, device, locations)
    shape = latent_shape(spec)
    count = len(dataset.records)
    mine = range(ranks.rank, math.ceil(count / CLIPS_PER_FILE), ranks.world_size)
    own_clips = sum(min(CLIPS_PER_FILE, count - file * CLIPS_PER_FILE) for file in mine)
    bad: list[Bad] = []
    with (
        ThreadPoolExecutor(spec.data.workers) as pool,
        progress("encode clips", own_clips, unit="clip", every=128) as bar,
    ):
        for file in mine:
            first = file * CLIPS_PER_FILE
            records = dataset.records[first : first + CLIPS_PER_FILE]
            latents = torch.zeros(len(records), *shape)
            for rows in _chunks(range(len(records)), CLIPS_PER_ENCODING):
                loaded = list(pool.map(partial(_load, spec), [records[row] for row in rows]))
                good = [(row, one) for row, one in zip(rows, loaded, strict=True) if isinstance(one, Clip)]
                bad += [
                    Bad(first + row, str(records[row].path), one.stage, one.reason)
                    for row, one in zip(rows, loaded, strict=True)
                    if isinstance(one, BadClip)
                ]
                if good:
                    frames = torch.stack([clip.frames for _, clip in good]).to(device)
                    with torch.no_grad():
                        encoded = autoencoder.encode(to_model_range(frames))
                    latents[[row for row, _ in good]] = encoded.float().cpu()
                bar.advance(len(rows))
            _save({"latents": latents}, staged / _latents_file(file))
    return bad


def _load(spec: TrainSpec, record: Record) -> Clip | BadClip:
    try:
        return load_clip(record, spec.data)
    except BadClip as problem:
        return problem


def _encode_captions(
    spec: TrainSpec, captions: Sequence[str], locations: Locations, device: torch.device
) -> Tensor:
    text_encoder = build_text_encoder(spec.text_encoder, device, locations)
    with torch.no_grad():
        parts = [
            text_encoder.encode([captions[row] for row in rows]).float().cpu()
            for rows in _chunks(range(len(captions)), CAPTIONS_PER_ENCODING)
        ]
    return torch.cat(parts)


def distinct_captions(dataset: Dataset) -> list[str]:
    """The empty caption, then each caption once, in the order of the dataset."""
    return list(dict.fromkeys(["", *(record.caption for record in dataset.records)]))


def latent_shape(spec: TrainSpec) -> tuple[int, int, int, int]:
    """`(C, T, H, W)` of one clip's latents."""
    data = spec.data
    return (
        spec.autoencoder.latent_channels,
        *spec.autoencoder.latent_shape(data.num_frames, data.height, data.width),
    )


def _read(folder: Path, dataset: Dataset) -> Features:
    index = json.loads((folder / INDEX).read_text("utf-8"))
    row_of = {caption: row for row, caption in enumerate(index["captions"])}
    files = range(math.ceil(len(dataset.records) / CLIPS_PER_FILE))
    return Features(
        latents=tuple(load_file(folder / _latents_file(file))["latents"] for file in files),
        text_MLD=load_file(folder / TEXT)["features"],
        rows=tuple(row_of[record.caption] for record in dataset.records),
        bad=tuple(Bad(**one) for one in index["bad"]),
    )


def _latents_file(file: int) -> str:
    return f"latents-{file:05d}.safetensors"


def _chunks(rows: range, size: int) -> Iterator[range]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
