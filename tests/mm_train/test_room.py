"""A training whose checkpoints don't fit on the disk is refused before anything is made."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import attrs
import pytest
from safetensors.torch import load_file

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.lora import LoraSpec
from mm_config.specs.optim import EmaSpec, MuonSpec
from mm_config.specs.train import TrainSpec
from mm_models.ops.choosing import REFERENCE
from mm_train import room
from mm_train.adapters import build_network
from mm_train.states import step_folder

Usage = namedtuple("Usage", "total used free")
BRIEF = {"schedule.steps": 3, "schedule.warmup_steps": 1, "data.batch_size": 4, "checkpoint.every_steps": 1}
KINDS: dict[str, dict[str, Any]] = {
    "AdamW with an average": {"ema": EmaSpec()},
    "Muon and frozen parts": {"optim": MuonSpec(), "frozen": ("patch_embedding.*",)},
}


def bytes_expected(spec: TrainSpec) -> int:
    return room.checkpoint_bytes(spec, build_network(spec, REFERENCE)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_those_of_the_tensors_that_a_run_wrote(
    small: TrainSpec, options: RunOptions, kind: str
) -> None:
    spec = replace(small, {**BRIEF, **KINDS[kind], "schedule.steps": 1, "schedule.warmup_steps": 0})
    result = mm_train.train(spec, options)
    groups = ("model", "optimizer", "average")
    files = [path for group in groups for path in (result.checkpoint / group).glob("*.safetensors")]
    written = sum(tensor.nbytes for path in files for tensor in load_file(path).values())
    assert bytes_expected(spec) == written


def test_of_adapters_only_these_and_their_moments_count(small: TrainSpec) -> None:
    lora = LoraSpec(rank=3, alpha=6.0, targets=("blocks.*.attn1.to_q",))
    # Two blocks, each with matrices of 3 x 32 and 32 x 3, in float32, and two moments of each.
    assert bytes_expected(replace(small, "lora", lora)) == 2 * (2 * 3 * 32) * 4 * 3


@pytest.mark.parametrize(
    ("changes", "stop_after", "number"),
    [
        ({"steps": 100, "every": 10, "last": 2}, None, 3),
        ({"steps": 15, "every": 10, "last": 2}, None, 2),
        ({"steps": 100, "every": 10, "last": 2}, 10, 1),
        ({"steps": 100, "every": 10, "last": 1, "kept": 50}, None, 4),
        ({"steps": 30, "every": 10, "last": 1, "kept": 10}, None, 3),
    ],
)
def test_as_many_lie_there_as_are_kept_and_the_one_that_is_written(
    small: TrainSpec, changes: dict[str, int], stop_after: int | None, number: int
) -> None:
    names = {
        "steps": "schedule.steps",
        "every": "checkpoint.every_steps",
        "last": "checkpoint.keep_last",
        "kept": "checkpoint.keep_every",
    }
    spec = replace(small, {names[name]: value for name, value in changes.items()})
    assert room.checkpoints_at_once(spec, stop_after) == number


def test_a_full_disk_is_one_line_and_nothing_is_made_and_what_is_there_counts(
    small: TrainSpec, options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, asked = replace(small, {**BRIEF, "checkpoint.keep_last": 1}), []
    size = bytes_expected(spec)

    def with_free(free: int) -> None:
        def usage(path: Path) -> Usage:
            asked.append(path)
            return Usage(1, 1, free)

        monkeypatch.setattr(shutil, "disk_usage", usage)

    with_free(2 * size - 1)
    elsewhere = attrs.evolve(options, runs_dir=tmp_path / "not" / "yet")
    with pytest.raises(UserError) as caught:
        mm_train.train(spec, elsewhere)
    gb = f"{2 * size / 1e9:.3g} GB"
    assert str(caught.value) == (
        f"spec.checkpoint: 2 checkpoints of {size / 1e9:.3g} GB lie on the disk at a time; {gb} more are "
        f"needed in {elsewhere.runs_dir}, {gb} are free; keep fewer or take another options.runs_dir"
    )
    assert asked == [tmp_path] and list(tmp_path.iterdir()) == []

    with_free(2 * size)
    first = mm_train.train(replace(spec, "schedule.steps", 2), options)
    assert first.checkpoint == step_folder(first.run_dir / "checkpoints", 2)
