"""Clips that are held out of training: which they are, and that no step ever has one."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from mm_config.schema import UserError
from mm_config.specs.data import Order
from mm_data import Dataset, make_plan, stream
from mm_data.index.table import ROWS, Flag, Head, IndexedRecords, write_head, write_table
from mm_data.mixing import mixed
from mm_data.plan import holding_out, sorting
from mm_data.plan.holding_out import held_out
from mm_data.plan.sorting import HELD, sort_clips
from mm_data.transforms.grid import WAN
from tests.mm_data.plans import bucket, measured, mixture, spec

MASK = 2**64 - 1


def mixed_bits(value: int) -> int:
    """The finaliser of SplitMix64, with numbers as the paper writes them."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def is_held(identity: int, share: float, seed: int) -> bool:
    """One file at a time, in Python's whole numbers."""
    key = hashlib.blake2b(str(seed).encode(), digest_size=8, person=b"mm_data.holdout").digest()
    number = mixed_bits(mixed_bits(identity) ^ int.from_bytes(key, "little"))
    return number / 2**64 < share


def index_of(folder: Path, files: list[str], pieces: int, order: list[int] | None = None) -> Dataset:
    """An index of files by their bytes, each cut into pieces of 17 frames; rows in an order."""
    folder.mkdir()
    rows = [(file, piece) for file in range(len(files)) for piece in range(pieces)]
    rows = [rows[place] for place in (order or range(len(rows)))]
    columns = {name: np.zeros(len(rows), kind) for name, kind in ROWS.items()}
    columns["media"][:] = columns["place"][:] = [file for file, _ in rows]
    columns["cut_start"][:] = [17 * piece for _, piece in rows]
    columns["cut_end"][:] = [17 * piece + 17 for _, piece in rows]
    columns["frames"][:], columns["fps_num"][:], columns["fps_den"][:] = 17, 16, 1
    columns["height"][:], columns["width"][:], columns["flags"][:] = 32, 32, Flag.CUT
    count = len(files)
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in files]
    write_table(folder / "rows.arrow", columns)
    write_table(
        folder / "media.arrow",
        {"height": [32] * count, "width": [32] * count, "sha256": digests, "state": [""] * count},
    )
    write_table(folder / "places.arrow", {"path": files})
    names = [f"{files[file]}#{piece}" for file, piece in rows]
    texts = {"name": names, "captions": [["a"]] * len(rows), "crop": [None] * len(rows)}
    write_table(folder / "texts.arrow", texts)
    write_head(folder, Head(folder.name, "0" * 64, f"key of {folder.name}", ".", len(rows)))
    return Dataset(folder, IndexedRecords(folder), f"key of {folder.name}")


def held_names(dataset: Dataset, share: float, seed: int) -> set[str]:
    return {dataset.records.name_of(int(row)) for row in np.flatnonzero(held_out(dataset, share, seed))}  # type: ignore[attr-defined]


def test_it_follows_from_the_bytes_and_the_seed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [f"{n}.mp4" for n in range(300)]
    dataset = index_of(tmp_path / "a", files, pieces=3)
    monkeypatch.setattr(holding_out, "CHUNK", 7)
    found = held_names(dataset, 0.2, 5)
    plain = {
        f"{file}#{piece}"
        for file in files
        for piece in range(3)
        if is_held(int.from_bytes(hashlib.sha256(file.encode()).digest()[:8], "big"), 0.2, 5)
    }
    assert found == plain
    assert abs(len(found) / 3 - 60) < 5 * (300 * 0.2 * 0.8) ** 0.5
    assert held_names(dataset, 0.2, 6) != found

    # More files, in another order: what was held out is, and nothing that was trained on has become so.
    order = list(range(3 * 400))
    random.Random(0).shuffle(order)
    grown = index_of(tmp_path / "b", files + [f"new {n}.mp4" for n in range(100)], 3, order)
    assert {name for name in held_names(grown, 0.2, 5) if not name.startswith("new")} == found
    assert found < held_names(dataset, 0.3, 5)


def test_a_listed_clip_is_known_by_its_path() -> None:
    dataset = measured([(17, 32, 32)] * 400)
    found = held_out(dataset, 0.25, 3).tolist()
    names = [f"{n}.mp4" for n in range(400)]
    keys = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
    assert found == [is_held(int.from_bytes(key, "little"), 0.25, 3) for key in keys]
    elsewhere = attrs.evolve(
        dataset,
        root=Path("/elsewhere"),
        records=tuple(attrs.evolve(one, path=Path("/elsewhere") / one.path.name) for one in dataset.records),
    )
    assert held_out(elsewhere, 0.25, 3).tolist() == found


def many(count: int, name: str) -> Dataset:
    sizes = [(33, 32, 32), (9, 64, 32), (1, 32, 32)]
    return measured([sizes[n % 3] for n in range(count)], name)


CASES: dict[str, dict[str, Any]] = {
    "one size": {"height": 32, "width": 32, "num_frames": 1},
    "buckets": {"buckets": (bucket(17, 32, 32), bucket(9, 64, 32, batch_size=2), bucket(1, 32, 32))},
    "in order": {"order": Order.SEQUENTIAL, "buckets": (bucket(9, 32, 32), bucket(1, 32, 32))},
    "mixture": {"dataset": mixture(0.9, 0.1), "buckets": (bucket(9, 32, 32), bucket(1, 32, 32))},
}


@pytest.mark.parametrize("case", CASES)
def test_no_step_of_any_epoch_has_a_held_out_clip(case: str) -> None:
    data = spec(**CASES[case])
    parts = [many(90, "a"), many(60, "b")]
    dataset = mixed(parts, [0.9, 0.1]) if case == "mixture" else parts[0]
    apart = np.concatenate([held_out(one, 0.3, 1) for one in dataset.parts or (dataset,)])
    expected = set(np.flatnonzero(apart).tolist())
    plan = make_plan(data, dataset, 1, holdout=0.3)
    steps = 6 * len(dataset.records) // data.batch_size
    # Of every place, also what stands in for clips that can't be read.
    trained = {
        plan.slot(step, position, attempt).index
        for step in range(steps)
        for position in range(plan.size(step))
        for attempt in range(min(plan.attempts(step, position), 5))
    }
    assert trained == set(range(len(dataset.records))) - expected

    validation = plan.held_out
    assert validation is not None
    seen = [index for step in range(validation.batches(1)) for index in validation.batch(step).indices]
    assert len(seen) == len(set(seen)) > 0
    assert set(seen) <= expected
    few = sum(given.tail for given in validation.counts.given)
    assert len(seen) == len(expected) - few
    assert [one for one in plan.counts.left_out if one.reason == HELD]


@pytest.mark.parametrize("world_size", [1, 2])
def test_no_rank_is_given_one(world_size: int) -> None:
    data, dataset = spec(height=32, width=32, num_frames=1), many(60, "a")
    plan = make_plan(data, dataset, 1, holdout=0.3)
    got: list[int] = []
    for rank in range(world_size):
        with stream(
            data,
            dataset,
            seed=1,
            plan=plan,
            rank=rank,
            world_size=world_size,
            end_step=60,
            load=lambda asked: asked.record,
            workers=0,
        ) as batches:
            got += [index for batch in batches for index in batch.indices]
    assert sorted(got) == sorted(index for step in range(60) for index in plan.batch(step).indices)
    assert not set(got) & set(np.flatnonzero(held_out(dataset, 0.3, 1)).tolist())


def test_a_sorting_that_is_kept_holds_out_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = index_of(tmp_path / "a", [f"{n}.mp4" for n in range(50)], pieces=2)
    data = spec(height=32, width=32, num_frames=9)
    in_memory = sort_clips(data, dataset, 0, WAN, None, 0.3)
    assert sum(map(len, in_memory.held.values())) == len(held_names(dataset, 0.3, 0)) > 0
    monkeypatch.setattr(sorting, "KEPT_FROM", 1)
    monkeypatch.setattr(sorting, "CHUNK", 7)
    for holdout, folders in ((0.3, 1), (0.3, 1), (0.4, 2), (0.0, 3)):
        kept = sort_clips(data, dataset, 0, WAN, tmp_path / "store", holdout)
        assert len(list((tmp_path / "store").iterdir())) == folders
        if holdout == 0.3:
            for found in ("members", "held"):
                here, there = getattr(kept, found), getattr(in_memory, found)
                assert {shape: list(rows) for shape, rows in here.items()} == {
                    shape: list(rows) for shape, rows in there.items()
                }
            assert kept.left_out == in_memory.left_out
    assert list(sort_clips(data, dataset, 0, WAN, None).members.values()) == [range(100)]


@pytest.mark.parametrize(("share", "count"), [(0.001, 0), (0.2, 2)])
def test_too_few_held_out_clips_are_refused_by_name(share: float, count: int) -> None:
    few = measured([(1, 32, 32)] * 10)
    with pytest.raises(UserError) as caught:
        make_plan(spec(height=32, width=32, num_frames=1), few, 0, holdout=share)
    assert str(caught.value) == (
        f"spec.validation.holdout: {share:g} of 10 clips holds out {count}, fewer than a batch of 4; "
        "hold out more"
    )
