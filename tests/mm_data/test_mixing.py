"""Several datasets as one: their clips follow each other, and their contents make one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import attrs
import pytest

from mm_config.schema import UserError
from mm_config.specs import ManifestSpec, MixturePart, MixtureSpec, ShapesSpec
from mm_data import dataset_input, prepare
from mm_data.mixing import Chained, mixed
from tests.mm_data.plans import measured


@pytest.fixture
def manifests(tmp_path: Path) -> MixtureSpec:
    """Two manifests of two and three clips, weighted 3 to 1."""
    parts = []
    for name, count, weight in (("a", 2, 3.0), ("b", 3, 1.0)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number}.mp4").write_bytes(f"{name}{number}".encode())
        rows = [json.dumps({"path": f"{n}.mp4", "caption": f"{name} {n}"}) for n in range(count)]
        (tmp_path / name / "manifest.jsonl").write_text("\n".join(rows))
        spec = ManifestSpec(name=name, path=str(tmp_path / name))
        parts.append(MixturePart(dataset=spec, weight=weight))
    return MixtureSpec(parts=tuple(parts))


def test_clips_of_parts_follow_each_other(manifests, tmp_path):
    dataset = prepare(manifests, cache_dir=tmp_path / "cache")
    assert [record.caption for record in dataset.records] == ["a 0", "a 1", "b 0", "b 1", "b 2"]
    assert dataset.root == tmp_path
    assert dataset.place_of(dataset.records[3]) == f"{tmp_path / 'b' / 'manifest.jsonl'}:2"
    assert [dataset.name_of(n) for n in (0, 4)] == ["a/0.mp4", "b/2.mp4"]


def test_chained_records_are_a_sequence():
    chained = Chained([measured([(9, 9, 9)] * n, str(n)).records for n in (2, 1, 3)])
    assert len(chained) == 6
    assert [record.caption for record in chained] == ["0", "1", "0", "0", "1", "2"]
    assert chained[-1] == chained[5] and list(chained[1:3]) == [chained[1], chained[2]]
    with pytest.raises(IndexError):
        chained[6]


def test_order_follows_from_parts_and_weights():
    parts = [measured([(9, 9, 9)], "a"), measured([(9, 9, 9)], "b")]
    keys = {mixed(some, weights).order_key for some in (parts, parts[::-1]) for weights in ([1, 1], [2, 1])}
    assert len(keys) == 4


def test_a_mixture_is_what_its_parts_are(manifests, tmp_path):
    """The digest by hand: of the parts' own digests and their places."""
    dataset = prepare(manifests, cache_dir=tmp_path / "cache")
    found = dataset_input(manifests, dataset, tmp_path / "contents")
    own = [
        dataset_input(part.dataset, prepare(part.dataset, cache_dir=tmp_path), tmp_path / "contents").digest
        for part in manifests.parts
    ]
    rows = sorted(f'["{digest}",{number}]\n' for number, digest in enumerate(own))
    assert found.digest == hashlib.sha256("".join(rows).encode()).hexdigest()
    (tmp_path / "b" / "1.mp4").write_bytes(b"changed")
    changed = dataset_input(manifests, dataset, tmp_path / "contents")
    assert found.digest != changed.digest
    assert found.details["in_order"] != changed.details["in_order"]


def test_a_part_that_is_another_content_is_named(manifests, tmp_path):
    first, second = manifests.parts
    pinned = attrs.evolve(second, dataset=attrs.evolve(second.dataset, digest="0" * 64))
    spec = MixtureSpec(parts=(first, pinned))
    with pytest.raises(UserError, match=r"spec\.data\.dataset\.parts\.1\.dataset\.digest: is 000"):
        dataset_input(spec, prepare(spec, cache_dir=tmp_path), tmp_path / "contents")


def test_rendered_clips_know_their_sizes(tmp_path):
    spec = ShapesSpec(clips_per_caption=1, num_frames=9, size=32)
    found = prepare(spec, cache_dir=tmp_path).records[0].measured
    assert found is not None
    assert (found.num_frames, found.fps, found.height, found.width) == (9, 8, 32, 32)
