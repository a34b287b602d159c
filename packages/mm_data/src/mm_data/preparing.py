"""From a dataset's spec to the clips on disk."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import attrs

from mm_config.options import FLAG, Locations
from mm_config.schema import Problem, UserError
from mm_config.specs import DatasetSpec, FolderSpec, IndexSpec, ManifestSpec, MixtureSpec, ShapesSpec
from mm_data.index.making import index_of_folder
from mm_data.index.sources.files import roots_of
from mm_data.index.table import IndexedRecords
from mm_data.manifest import read_manifest
from mm_data.mixing import mixed
from mm_data.records import Dataset, Measured
from mm_data.shapes.dataset import render_dataset

MANIFEST_NAME = "manifest.jsonl"


def prepare(
    dataset: DatasetSpec, *, cache_dir: Path, locations: Locations | None = None, isolated: bool = False
) -> Dataset:
    """Makes sure that a dataset is there, and reads its manifest or opens its index.

    Args:
        dataset: Which data. A `ShapesSpec` is rendered below `cache_dir / "datasets"` on first use. A
            `ManifestSpec` names a manifest, or a folder that holds a `manifest.jsonl`. An `IndexSpec` names
            an index, a `FolderSpec` what is indexed below `cache_dir / "indexes"`, again where it changed.
        cache_dir: Folder for rendered data and indexes.
        locations: Where logical names lie on this machine.
        isolated: Whether files that are new are measured in processes with limits.

    Raises:
        UserError: The manifest is missing or wrong, a name has no location, or rendered data was damaged.
    """
    if isinstance(dataset, ShapesSpec):
        rendered = read_manifest(render_dataset(dataset, cache_dir / "datasets") / MANIFEST_NAME)
        size = Measured(dataset.num_frames, Fraction(dataset.fps), dataset.size, dataset.size)
        records = tuple(attrs.evolve(record, measured=size) for record in rendered.records)
        return attrs.evolve(rendered, records=records)
    if isinstance(dataset, ManifestSpec):
        path = _path(dataset, locations or Locations())
        return read_manifest(path / MANIFEST_NAME if path.is_dir() else path)
    if isinstance(dataset, MixtureSpec):
        parts = [
            prepare(part.dataset, cache_dir=cache_dir, locations=locations, isolated=isolated)
            for part in dataset.parts
        ]
        return mixed(parts, [part.weight for part in dataset.parts])
    if isinstance(dataset, IndexSpec | FolderSpec):
        return _indexed(dataset, cache_dir, locations or Locations(), isolated=isolated)
    message = f"mm_data can't prepare a {type(dataset).__name__}"
    raise UserError(Problem("spec.data.dataset", message))


def _indexed(
    dataset: IndexSpec | FolderSpec, cache_dir: Path, locations: Locations, *, isolated: bool
) -> Dataset:
    remote = isinstance(dataset, FolderSpec) and dataset.path is not None and "://" in dataset.path
    source = str(dataset.path) if remote else str(_path(dataset, locations).absolute())
    if isinstance(dataset, FolderSpec):
        records = index_of_folder(dataset, source, cache_dir, locations, isolated=isolated)
    else:
        records = IndexedRecords(Path(source), roots=roots_of(locations))
    return Dataset(records.root, records, records.head.order_key)


def _path(dataset: ManifestSpec | IndexSpec | FolderSpec, locations: Locations) -> Path:
    """The spec's own path, or its name's location; a name given by a flag must not be passed over."""
    if dataset.path is None:
        return locations.resolve(dataset.name)
    if any(entry.name == dataset.name and entry.source == FLAG for entry in locations.entries):
        message = f"is {dataset.path!r}, and {FLAG} says where {dataset.name!r} lies, too; give one of them"
        raise UserError(Problem("spec.data.dataset.path", message))
    return Path(dataset.path)
