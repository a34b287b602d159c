"""Whatever a file holds ends no training and no process: it is listed once, and the rest comes in order."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import pytest

from mm_config.specs.data import DataSpec, Reader
from mm_data import Asked, Dataset, batch_indices, load_clip, stream
from tests.mm_data.conftest import INSTALLED, Coded
from tests.mm_data.damages import audio_only, damaged_dataset, originals, too_large

FEW, ALL = 60, 3000
READERS = (
    "pyav",
    "decord",
    "pyav isolated",
    *(["torchcodec isolated"] if Reader.TORCHCODEC in INSTALLED else []),
)
BATCH = 4


@pytest.fixture(scope="session")
def contents(tmp_path_factory: pytest.TempPathFactory, coded: Coded) -> dict[str, bytes]:
    return originals(tmp_path_factory.mktemp("originals"), coded)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("count", [FEW, pytest.param(ALL, marks=pytest.mark.slow)])
def test_damaged_clips_are_listed_once_and_the_rest_comes_in_order(
    tmp_path: Path,
    contents: dict[str, bytes],
    data_spec: Callable[..., DataSpec],
    reader: str,
    count: int,
) -> None:
    seed = date.today().toordinal() if count == FEW else 0
    print(f"seed {seed}")
    hopeless = {"audio.mp4": audio_only(tmp_path / "audio.mp4").read_bytes()}
    if count == ALL:
        hopeless["large.mp4"] = too_large(tmp_path / "large.mp4").read_bytes()
    (tmp_path / "clips").mkdir()
    dataset = damaged_dataset(tmp_path / "clips", contents, hopeless, count, seed)
    data = data_spec(
        reader=Reader(reader.split()[0]),
        isolated="isolated" in reader,
        batch_size=BATCH,
        num_frames=17,
        max_bad_share=1.0,
    )
    quarantine = tmp_path / "quarantine.jsonl"
    size = len(dataset.records)
    steps = size // BATCH + 1
    with stream(
        data, dataset, seed=0, end_step=steps, load=partial(_caption, data=data), quarantine=quarantine
    ) as batches:
        taken = [index for batch in batches for index in batch.indices][:size]
    listed = [json.loads(line) for line in quarantine.read_text().splitlines()]
    bad = {entry["index"] for entry in listed}
    assert len(bad) == len(listed)
    _require_sensible(dataset, bad)
    planned = [n for step in range(steps) for n in batch_indices("digest", 0, step, BATCH, size)]
    order = planned[:size]
    for place, index in enumerate(taken):
        assert index == next(n for n in order[place:] + order[:place] if n not in bad)
    ended = sum("process ended" in entry["reason"] for entry in listed)
    print(f"{reader}: {count} damaged, {len(bad)} in quarantine once, of which {ended} ended a process")


def _caption(asked: Asked, data: DataSpec) -> str:
    """Loads a clip, and keeps no frames."""
    return load_clip(asked, data).caption


def _require_sensible(dataset: Dataset, bad: set[int]) -> None:
    captions = [record.caption for record in dataset.records]
    assert {n for n, caption in enumerate(captions) if caption.startswith("hopeless")} <= bad
    assert not {n for n, caption in enumerate(captions) if caption == "intact"} & bad
