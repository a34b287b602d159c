"""From a dataset's spec to the clips on disk."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import attrs

from mm_config.options import FLAG, Locations
from mm_config.schema import Problem, UserError
from mm_config.specs import DatasetSpec, ManifestSpec, MixtureSpec, ShapesSpec
from mm_data.manifest import read_manifest
from mm_data.mixing import mixed
from mm_data.records import Dataset, Measured
from mm_data.shapes.dataset import render_dataset

MANIFEST_NAME = "manifest.jsonl"


def prepare(dataset: DatasetSpec, *, cache_dir: Path, locations: Locations | None = None) -> Dataset:
    """Makes sure that a dataset is there, and reads its manifest.

    Args:
        dataset: Which data. A `ShapesSpec` is rendered below `cache_dir / "datasets"` on first use. A
            `ManifestSpec` names a manifest, or a folder that holds a `manifest.jsonl`.
        cache_dir: Folder for rendered data.
        locations: Where logical names lie on this machine.

    Raises:
        UserError: The manifest is missing or wrong, a name has no location, or rendered data was damaged.
    """
    if isinstance(dataset, ShapesSpec):
        rendered = read_manifest(render_dataset(dataset, cache_dir / "datasets") / MANIFEST_NAME)
        size = Measured(dataset.num_frames, Fraction(dataset.fps), dataset.size, dataset.size)
        records = tuple(attrs.evolve(record, measured=size) for record in rendered.records)
        return attrs.evolve(rendered, records=records)
    if isinstance(dataset, ManifestSpec):
        path = _manifest_path(dataset, locations or Locations())
        return read_manifest(path / MANIFEST_NAME if path.is_dir() else path)
    if isinstance(dataset, MixtureSpec):
        parts = [prepare(part.dataset, cache_dir=cache_dir, locations=locations) for part in dataset.parts]
        return mixed(parts, [part.weight for part in dataset.parts])
    message = f"mm_data can't prepare a {type(dataset).__name__}"
    raise UserError(Problem("spec.data.dataset", message))


def _manifest_path(dataset: ManifestSpec, locations: Locations) -> Path:
    """The spec's own path, or its name's location; a name given by a flag must not be passed over."""
    if dataset.path is None:
        return locations.resolve(dataset.name)
    if any(entry.name == dataset.name and entry.source == FLAG for entry in locations.entries):
        message = f"is {dataset.path!r}, and {FLAG} says where {dataset.name!r} lies, too; give one of them"
        raise UserError(Problem("spec.data.dataset.path", message))
    return Path(dataset.path)
