"""An index as an input of a run: what a manifest of the same clips is, held to what lies there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mm_config.schema import UserError
from mm_config.specs import IndexSpec, ManifestSpec
from mm_data import Dataset, dataset_input, prepare
from mm_data.index.building import Built
from mm_data.index.table import IndexedRecords
from tests.mm_data.conftest import Coded
from tests.mm_data.sources import index_of, listed


@pytest.fixture
def clips(tmp_path: Path, coded: Coded) -> Path:
    root = tmp_path.resolve() / "clips"
    root.mkdir()
    for name, times in (("a.mp4", 9), ("b.mp4", 12)):
        coded.write(root / name, range(times))
    return root


@pytest.fixture
def built(clips: Path, tmp_path: Path) -> Built:
    return index_of(clips, [listed(clips, "a.mp4", "one"), listed(clips, "b.mp4", "two")], tmp_path / "index")


def content(built: Built, contents: Path, digest: str | None = None):
    records = IndexedRecords(built.folder)
    dataset = Dataset(records.root, records, records.head.order_key)
    return dataset_input(IndexSpec(name="index", digest=digest or built.head.digest), dataset, contents)


def test_it_is_what_the_manifest_is_that_lists_the_same(clips: Path, built: Built, tmp_path: Path) -> None:
    entries = [{"path": "b.mp4", "caption": "two"}, {"path": "a.mp4", "caption": "one"}]
    manifest = clips / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    spec = ManifestSpec(name="clips", path=str(manifest))
    by_manifest = dataset_input(spec, prepare(spec, cache_dir=tmp_path), tmp_path / "contents")
    found = content(built, tmp_path / "contents")
    assert found.digest == by_manifest.digest == built.head.digest
    assert (found.kind, found.name, found.pinned) == ("index-dataset", "index", True)
    manifest.write_text("\n".join(map(json.dumps, entries[::-1])), encoding="utf-8")
    turned = dataset_input(spec, prepare(spec, cache_dir=tmp_path), tmp_path / "contents")
    assert found.details["in_order"] == turned.details["in_order"] != by_manifest.details["in_order"]


def test_the_digest_of_the_spec_must_be_the_indexs(built: Built, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"spec.data.dataset.digest: is {'0' * 64}, but the content found"):
        content(built, tmp_path, "0" * 64)


def test_clips_that_changed_since_are_told_and_touched_ones_are_read(
    clips: Path, built: Built, tmp_path: Path, coded: Coded
) -> None:
    os.utime(clips / "a.mp4", (1, 1))
    assert content(built, tmp_path).digest == built.head.digest
    coded.write(clips / "b.mp4", range(5))
    with pytest.raises(UserError, match=r"changed since they were indexed: b.mp4; `mm data index`"):
        content(built, tmp_path)


def test_an_index_that_is_not_what_it_says_is_refused(built: Built, tmp_path: Path) -> None:
    head = json.loads((built.folder / "index.json").read_text("utf-8"))
    (built.folder / "index.json").write_text(json.dumps({**head, "digest": "0" * 64}), encoding="utf-8")
    with pytest.raises(UserError, match=f"says that its digest is {'0' * 64}, but that of its rows is"):
        content(built, tmp_path, "0" * 64)
