"""Stores of features: names that follow from content, rows of any shape, whole shards whatever happens."""

import hashlib
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from mm_config.specs.data import BucketSpec, Cache, ClipStart, DataSpec, Interpolation, Reader, Resize, Tails
from mm_config.specs.datasets import ShapesSpec
from mm_data import Asked, Damaged, Record, Shape, Store, clip_key, digest_of
from mm_data.features.keys import _BESIDE_FRAMES
from mm_data.index.table import read_table, write_table

DATA = DataSpec(dataset=ShapesSpec(), batch_size=4, num_frames=5, height=16, width=16)
CLIP = Asked(Record(Path("/a/clip.mp4"), "red"), 0, Shape(5, 16, 16), "")


def key(content: str = "a" * 64, asked: Asked = CLIP, **changes: Any) -> str:
    return clip_key("encoder", content, asked, attrs.evolve(DATA, **changes))


@pytest.mark.parametrize(
    "change",
    [
        {"fps": 8.0},
        {"frame_interval": 2},
        {"start": ClipStart.MIDDLE},
        {"speed_factor": 2.0},
        {"resize": Resize.CENTER_CROP},
        {"interpolation": Interpolation.BILINEAR},
        {"flip_share": 1.0},
    ],
)
def test_what_chooses_timestamps_and_framing_is_in_a_clips_name(change: dict[str, Any]) -> None:
    assert key(**change) != key()


def test_a_name_follows_from_bytes_cut_crop_shape_and_encoder_and_not_from_path_place_and_batches() -> None:
    record = CLIP.record
    others = [
        key("b" * 64),
        key(asked=attrs.evolve(CLIP, record=attrs.evolve(record, cut=(0, 9)))),
        key(asked=attrs.evolve(CLIP, record=attrs.evolve(record, crop=(0, 0, 8, 8)))),
        key(asked=attrs.evolve(CLIP, shape=Shape(5, 16, 32))),
        clip_key("another encoder", "a" * 64, CLIP, DATA),
    ]
    assert len({key(), *others}) == 6
    moved = attrs.evolve(record, path=Path("/b/other.mp4"), caption="blue", line=3)
    assert key(asked=attrs.evolve(CLIP, record=moved, index=7, draw="1/2/3")) == key()
    beside = {
        "batch_size": 8,
        "caption_dropout": 0.5,
        "tails": Tails.DROP,
        "buckets": (BucketSpec(num_frames=5, height=16, width=16),),
        "reader": Reader.DECORD,
        "cache": Cache.LATENTS,
        "workers": 3,
    }
    assert key(**beside) == key()


def test_a_field_that_is_added_to_the_data_is_in_names_until_somebody_says_that_it_is_not() -> None:
    fields = {one.name for one in attrs.fields(DataSpec)}
    assert fields >= _BESIDE_FRAMES


def test_draws_are_in_names_where_frames_follow_from_them() -> None:
    first, second = (attrs.evolve(CLIP, draw=f"variant {number}") for number in range(2))
    assert key(asked=first) == key(asked=second)
    drawn: list[dict[str, Any]] = [
        {"start": ClipStart.RANDOM},
        {"resize": Resize.RANDOM_CROP},
        {"flip_share": 0.5},
    ]
    for change in drawn:
        assert key(asked=first, **change) != key(asked=second, **change)


def rows(count: int) -> dict[str, dict[str, torch.Tensor]]:
    """Rows of unequal shapes and formats."""
    return {
        digest_of(number): {
            "latents": torch.full((number % 3 + 1, 2), number, dtype=torch.bfloat16),
            "scale": torch.tensor(float(number)),
        }
        for number in range(count)
    }


def written(folder: Path, count: int = 20) -> Store:
    store, all_rows = Store(folder, {"encoder": 1}), list(rows(count).items())
    for start in range(0, count, 6):
        store.write(dict(all_rows[start : start + 6]))
    return store


def test_a_store_gives_what_was_written_with_its_index_and_without(tmp_path: Path) -> None:
    store = written(tmp_path / "store")
    digest = store.digest
    # A plain second form of the content's digest.
    lines = []
    for name, row in sorted(rows(20).items()):
        one = hashlib.sha256(name.encode())
        for part, value in sorted(row.items()):
            one.update(f"|{part} {value.dtype} {tuple(value.shape)}|".encode())
            one.update(bytes(value.flatten().view(torch.uint8).tolist()))
        lines.append(f"{name} {one.hexdigest()}\n")
    assert digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    store.seal()
    sealed = Store(tmp_path / "store", {"encoder": 1})
    (tmp_path / "store" / "index.arrow").unlink()
    for found in (store, sealed, Store(tmp_path / "store", {"encoder": 1})):
        assert found.digest == digest
        assert list(found) == sorted(rows(20))
        for name, row in rows(20).items():
            read = found.read(name)
            assert read.keys() == row.keys()
            assert all(torch.equal(read[part], value) for part, value in row.items())
        assert digest_of("else") not in found


def test_every_flipped_byte_of_a_shards_values_is_noticed(tmp_path: Path) -> None:
    store = written(tmp_path / "store", 3)
    (shard,) = (tmp_path / "store").glob("*.safetensors")
    content = shard.read_bytes()
    values = range(8 + int.from_bytes(content[:8], "little"), len(content))
    assert len(values) >= 3 * 6
    for place in values:
        damaged = bytearray(content)
        damaged[place] ^= 4
        shard.write_bytes(damaged)
        broken = 0
        for name in rows(3):
            try:
                store.read(name)
            except Damaged:
                broken += 1
        assert broken == 1


def test_a_row_under_another_name_and_a_shard_that_is_cut_are_damaged(tmp_path: Path) -> None:
    store = written(tmp_path / "store")
    first, second = sorted((tmp_path / "store").glob("*.safetensors"))[:2]
    content = second.read_bytes()
    second.write_bytes(first.read_bytes())
    lost = [name for name in rows(20) if store.shard_of(name) == second]
    for name in lost:
        with pytest.raises(Damaged):
            store.read(name)
    second.write_bytes(content[:-1])
    with pytest.raises(Damaged):
        store.read(lost[0])
    # Whoever opens the store now makes these rows again.
    assert set(Store(tmp_path / "store", {"encoder": 1})) == rows(20).keys() - set(lost)


def test_two_writers_of_one_store_lose_nothing(tmp_path: Path) -> None:
    ours, theirs = (Store(tmp_path / "store", {"encoder": 1}) for _ in range(2))
    first, second = dict(list(rows(8).items())[:4]), dict(list(rows(8).items())[4:])
    ours.write(first)
    theirs.write(second)
    ours.seal()
    theirs.seal()
    assert set(Store(tmp_path / "store", {"encoder": 1})) == rows(8).keys()
    # The index knows all of them: a start reads no shard.
    for shard in (tmp_path / "store").glob("*.safetensors"):
        shard.unlink()
    assert set(Store(tmp_path / "store", {"encoder": 1})) == rows(8).keys()


@pytest.mark.parametrize("how", ["places", "order", "kind", "gaps"])
def test_an_index_that_somebody_edited_is_as_good_as_none(tmp_path: Path, how: str) -> None:
    store = Store(tmp_path, {"encoder": 1})
    keys = [digest_of(number) for number in range(4)]
    for key in keys:
        store.write({key: {"values": torch.zeros(2)}})
    store.seal()
    batch = read_table(tmp_path / "index.arrow")
    columns: dict[str, Any] = {name: batch.column(name) for name in batch.schema.names}
    shards = columns["shard"].dictionary
    columns |= {
        "places": {
            "shard": pa.DictionaryArray.from_arrays(pa.array([99] * 4, pa.int32()), shards, safe=False)
        },
        "order": {"key": pa.array(columns["key"].to_pylist()[::-1], pa.binary(32))},
        "kind": {"key": pa.array(keys)},
        "gaps": {"digest": pa.array([None] * 4, pa.binary(32))},
    }[how]
    write_table(tmp_path / "index.arrow", columns)
    edited = Store(tmp_path, {"encoder": 1})
    assert all(edited.read(key)["values"].equal(torch.zeros(2)) for key in keys)


@pytest.mark.parametrize("rows", ['{"zz": "11"}', "[" * 100_000, "{}", '{"' + "0" * 64 + '": 5}'])
def test_a_shard_of_somebody_elses_rows_is_passed_over(tmp_path: Path, rows: str) -> None:
    store = Store(tmp_path, {"encoder": 1})
    store.write({(key := digest_of("mine")): {"values": torch.zeros(2)}})
    save_file({"zz.x": torch.zeros(1)}, tmp_path / "other.safetensors", metadata={"rows": rows})
    found = Store(tmp_path, {"encoder": 1})
    found.seal()
    assert list(Store(tmp_path, {"encoder": 1})) == [key]
