"""Trainings on clips of several sizes from several datasets, and what is said before the first step."""

from __future__ import annotations

import json

import attrs
import pytest

import mm_train
from mm_config import replace
from mm_config.options import StoppedEarly
from mm_config.schema import UserError
from mm_config.specs import ManifestSpec
from mm_config.specs.data import Resize
from mm_data import make_plan, prepare
from tests.mm_train.conftest import LARGE_SHAPES, SMALL_SHAPES


def test_a_mixture_in_buckets_is_trained_on_and_goes_on_where_it_stopped(mixed, options, capsys):
    whole = mm_train.train(mixed, options)
    said = capsys.readouterr().out
    # By hand: half of the 96 samples of a pass from each part, 48 / 4 and 48 / 8 batches.
    assert "9x32x32: 0 + 64 clips, 6 batches of 8 in an epoch" in said
    assert "17x64x64: 32 + 0 clips, 12 batches of 4 in an epoch" in said
    plan = make_plan(mixed.data, prepare(mixed.data.dataset, cache_dir=options.cache_dir), mixed.seed)
    sizes = {plan.size(step) for step in range(6)}
    assert sizes == {4, 8}
    losses = [json.loads(line)["loss"] for line in (whole.run_dir / "metrics.jsonl").read_text().splitlines()]
    with pytest.raises(StoppedEarly):
        mm_train.train(mixed, attrs.evolve(options, stop_after=3))
    resumed = mm_train.train(mixed, attrs.evolve(options, resume="latest"))
    again = [
        json.loads(line)["loss"] for line in (resumed.run_dir / "metrics.jsonl").read_text().splitlines()
    ]
    assert again == losses


def test_each_clip_keeps_its_own_area_and_length(mixed, options, capsys):
    sizes = {"data.buckets": (), "data.resize": Resize.AREA, "data.size_multiple": 32}
    lengths = {"data.min_num_frames": 9, "data.drop_short_share": 0.0, "data.fps": 8.0}
    few = {"data.max_aspect_ratio": 1.5, "data.min_pixels": 33**2, "schedule.steps": 1, "name": "large"}
    with pytest.raises(UserError, match=r"parts\.1: no clip of 64 is left: 64 x fewer pixels than"):
        mm_train.train(replace(mixed, {**sizes, **lengths, **few}), options)
    mm_train.train(replace(mixed, {**sizes, **lengths, "name": "area", "schedule.steps": 3}), options)
    said = capsys.readouterr().out
    assert "9x32x32: 0 + 64 clips, 6 batches of 8" in said
    assert "17x64x64: 32 + 0 clips, 6 batches of 8" in said


def test_what_is_left_out_is_said_before_the_first_step_and_at_the_end(mixed, options, tmp_path, capsys):
    small, large = (prepare(one, cache_dir=options.cache_dir).records for one in (SMALL_SHAPES, LARGE_SHAPES))
    for n, record in enumerate((*small[:3], *large[:5])):
        (tmp_path / f"{n}.mp4").hardlink_to(record.path)
    rows = [json.dumps({"path": f"{n}.mp4", "caption": "a"}) for n in range(8)]
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows))
    dataset = ManifestSpec(name="told", path=str(tmp_path))
    changes = {"data.dataset": dataset, "data.min_pixels": 33**2, "schedule.steps": 1, "name": "told"}
    mm_train.train(replace(mixed, changes), options)
    lines = capsys.readouterr().out.splitlines()
    told = "left out: 3 of 8 clips, fewer pixels than data.min_pixels: 0.mp4, 1.mp4, 2.mp4"
    step = next(n for n, line in enumerate(lines) if line.startswith("train told"))
    assert [n > step for n, line in enumerate(lines) if line == told] == [False, True]


def test_missing_files_end_a_training_before_its_run_is_made(mixed, options, tmp_path):
    rows = [json.dumps({"path": f"{n}.mp4", "caption": "a"}) for n in range(10)]
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows))
    for n in (1, 2):
        (tmp_path / f"{n}.mp4").touch()
    changes = {"data.dataset": ManifestSpec(name="few", path=str(tmp_path)), "data.buckets": ()}
    with pytest.raises(UserError, match="the files of 8 of 10 clips are missing: 0"):
        mm_train.train(replace(mixed, {**changes, "name": "few"}), options)
    assert not (options.runs_dir / "few").exists()
