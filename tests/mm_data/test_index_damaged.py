"""Whatever a file holds ends no indexing: it is in a row or left out with a reason, once."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from mm_data.index.table import IndexedRecords
from tests.mm_data.conftest import Coded
from tests.mm_data.damages import audio_only, damaged_dataset, originals
from tests.mm_data.sources import index_of, listed

FEW, ALL = 60, 1000


@pytest.mark.parametrize("count", [FEW, pytest.param(ALL, marks=pytest.mark.slow)])
def test_damaged_clips_are_left_out_once_and_the_rest_is_indexed(
    tmp_path: Path, coded: Coded, count: int
) -> None:
    seed = date.today().toordinal() if count == FEW else 0
    print(f"seed {seed}")
    root = tmp_path.resolve() / "clips"
    root.mkdir()
    hopeless = {"audio.mp4": audio_only(tmp_path / "audio.mp4").read_bytes()}
    dataset = damaged_dataset(root, originals(tmp_path, coded), hopeless, count, seed)
    clips = {record.path.name: record.caption for record in dataset.records}
    built = index_of(root, [listed(root, *clip) for clip in clips.items()], tmp_path / "index")
    rows = [record.path.name for record in IndexedRecords(tmp_path / "index")]
    out = [one.name for one in built.left_out]
    assert sorted([*rows, *out]) == sorted(clips)
    assert {clips[name].split()[0] for name in rows} <= {"intact", "damaged"}
    assert {clips[name].split()[0] for name in out} <= {"hopeless", "damaged"}
    assert all(": " in one.reason for one in built.left_out)
    print(f"{count} damaged: {len(out)} left out, for {len(built.stats['left_out']['reasons'])} reasons")
