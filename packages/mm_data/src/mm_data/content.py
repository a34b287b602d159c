"""What a dataset is as an input: the bytes of its clips and their captions, in any order and place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from mm_config.content import Input, Part, parts_input, pinned, sha256_of_files
from mm_config.schema import spec_hash, tag_of
from mm_config.specs import DatasetSpec, ManifestSpec, ShapesSpec
from mm_data.records import Dataset


def dataset_input(spec: DatasetSpec, dataset: Dataset, contents_dir: Path) -> Input:
    """The content of a dataset. Clips are read the first time only, and where they changed.

    Its digest knows neither the manifest's bytes, further keys and order nor where the clips lie. What it
    knows of a clip is the sha256 of its file and its caption; the whole clip is taken, so its cut is none.

    Args:
        spec: Which data.
        dataset: What `prepare` returned.
        contents_dir: Where the digests of clips are kept, `RunOptions.contents_dir`.

    Raises:
        UserError: The spec says which digest it must be, and it is another.
    """
    digests = sha256_of_files(record.path for record in dataset.records)
    parts = [
        Part(record.path.relative_to(dataset.root).as_posix(), (digest, record.caption, None))
        for record, digest in zip(dataset.records, digests, strict=True)
    ]
    name, revision = _name(spec)
    details = {
        "path": str(dataset.root),
        "clips": len(parts),
        "in_order": hashlib.sha256(json.dumps([part.content for part in parts]).encode()).hexdigest(),
        "order_key": dataset.order_key,
    }
    found = parts_input(parts, contents_dir, kind=tag_of(spec), name=name, revision=revision, details=details)
    return pinned(found, getattr(spec, "digest", None), "spec.data.dataset")


def clip_digests(dataset: Dataset) -> Sequence[str | None]:
    """sha256 of each clip's file or shard, in the order of the dataset; None of one that can't be read."""
    return sha256_of_files(record.path for record in dataset.records)


def _name(spec: DatasetSpec) -> tuple[str | None, str | None]:
    """Name and revision. Rendered clips are named by what is rendered: encoders may change under it."""
    if isinstance(spec, ManifestSpec):
        return spec.name, spec.revision
    if isinstance(spec, ShapesSpec):
        return f"shapes {spec_hash(spec)[:12]}", str(spec.revision)
    return None, None
