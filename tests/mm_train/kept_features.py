"""What tests of kept features share: datasets that know their bytes, and features opened in a folder."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

import mm_data
from mm_config import replace
from mm_config.content import Input
from mm_config.options.run_options import RunOptions
from mm_config.specs.datasets import ManifestSpec
from mm_config.specs.train import TrainSpec
from mm_data import Asked, Dataset, ask
from mm_models.ranks import Ranks
from mm_train.content import with_content
from mm_train.features.looking_up import Features
from mm_train.features.opening import open_features

ALONE = Ranks(rank=0, world_size=1, grouped=False)
CPU = torch.device("cpu")


def prepared(spec: TrainSpec, options: RunOptions) -> Dataset:
    """The dataset as a training knows it."""
    dataset = mm_data.prepare(spec.data.dataset, cache_dir=options.cache_dir)
    data = mm_data.dataset_input(spec.data.dataset, dataset, dataset.root.parent / "contents")
    return with_content(dataset, data)


def asks_of(spec: TrainSpec, dataset: Dataset, draw: str = "") -> list[Asked]:
    """Every clip, asked for once."""
    return [ask(record, spec.data, index, draw) for index, record in enumerate(dataset.records)]


def opened(
    spec: TrainSpec, dataset: Dataset, folder: Path, inputs: Mapping[str, Input] | None = None
) -> Features:
    """The features of a dataset, kept below a folder."""
    options, inputs = RunOptions(runs_dir=folder), inputs or {}
    found = open_features(spec, dataset, lambda: asks_of(spec, dataset), options, CPU, ALONE, inputs)
    assert found is not None
    return found


def all_of(features: Features, spec: TrainSpec, dataset: Dataset) -> list[torch.Tensor]:
    """Latents of all clips and features of all captions."""
    latents = [features.latents_of(features.kept(asked)) for asked in asks_of(spec, dataset)]
    captions = sorted({"", *(record.caption for record in dataset.records)})
    return [*latents, *map(features.text_of, captions)]


def equal(first: Iterable[torch.Tensor], second: Iterable[torch.Tensor]) -> bool:
    """Whether tensors agree bit for bit."""
    return all(torch.equal(ours, theirs) for ours, theirs in zip(first, second, strict=True))


def with_own_clips(spec: TrainSpec, options: RunOptions, folder: Path) -> TrainSpec:
    """The spec over a copy of the rendered clips that a test may damage."""
    shutil.copytree(prepared(spec, options).root, folder)
    manifest = ManifestSpec(name=str(folder), path=str(folder))
    return replace(spec, {"data.dataset": manifest, "schedule.steps": 10})


def clips_of(spec: TrainSpec) -> list[Path]:
    """The files of its clips."""
    assert isinstance(spec.data.dataset, ManifestSpec)
    assert spec.data.dataset.path is not None
    return sorted(Path(spec.data.dataset.path).rglob("*.mp4"))


def damage(spec: TrainSpec, count: int) -> list[Path]:
    """Overwrites its first clips."""
    clips = clips_of(spec)[:count]
    for clip in clips:
        clip.write_bytes(b"no video")
    return clips
