"""Equal content in another order of samples: other weights, and nothing takes the one for the other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import mm_train
from mm_config.cli.app import app
from mm_config.options import RunOptions, Threads
from mm_config.running import on_threads
from mm_config.running.runners import run
from mm_config.runs import attach
from mm_config.specs import InferSpec, TrainSpec
from tests.end_to_end.clips import DATA, inputs_of, manifest_rows, write_manifest


def key(folder: Path) -> str:
    """The first digits of the key of a training's order of samples."""
    return inputs_of(folder)[DATA].details["order_key"][:12]


def test_equal_content_in_another_order_is_told_wherever_content_is(
    data: Path,
    training: TrainSpec,
    generation: InferSpec,
    options: RunOptions,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def mm(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        status = app([*map(str, words), "--runs-dir", str(options.runs_dir)])
        printed = capsys.readouterr()
        assert status != 2, printed.err
        return status, printed.out

    needed = RunOptions(runs_dir=options.runs_dir, if_needed=True)
    with on_threads(Threads(openmp=1, torch=1)):
        first = run(training, needed).run_dir
        shown = [run(generation, options).run_dir]
        write_manifest(data, manifest_rows(data)[::-1])
        status, told = mm("reproduce", first)
        capsys.readouterr()
        second = run(training, needed)
        said = capsys.readouterr().out
        newest = run(generation, options).run_dir
        shown.append(newest)
    orders = f"{key(first)} -> {key(second.run_dir)}"
    assert not second.reused and f"{first} has an equal spec, but {DATA} has its samples in another" in said
    assert attach(first).record.made_of == attach(second.run_dir).record.made_of
    assert status == 1 and f"  likely      data: {DATA}, order of samples: {orders}\n" in told

    said = capsys.readouterr().out
    assert f"2 finished runs made these weights; {second.run_dir} is taken, the newest whose inputs" in said
    write_manifest(data, manifest_rows(data)[::-1])
    run(generation, options)
    assert f"{first} is taken" in capsys.readouterr().out
    assert run(training, needed).run_dir == first
    made = [attach(folder).record.made_of for folder in shown]
    assert made[0] != made[1]

    status, told = mm("diff", first, second.run_dir)
    assert status == 1 and "the order of samples differs, of which made_of knows nothing\n" in told
    assert f"data {DATA}, order of samples  {orders}\n" in told and "made_of differs" not in told
    videos = [next((folder / "samples").glob("*.mp4")) for folder in shown]
    status, told = mm("diff", *videos)
    assert status == 1 and "made_of differs: 2 inputs\n" not in told and "made_of differs: 1 input\n" in told
    assert f"weights spec.high_noise, data {DATA}, order of samples  {orders}\n" in told
    assert f"{DATA}, order of samples" in mm("runs", "compare", first, second.run_dir)[1]

    shutil.rmtree(first / "checkpoints")
    with on_threads(Threads(openmp=1, torch=1)):
        status, told = mm("reproduce", shown[0])
    (likely,) = (line for line in told.splitlines() if line.startswith("  likely "))
    assert likely == f"  likely      weights: spec.high_noise, data {DATA}, order of samples: {orders}"


def test_a_run_that_goes_on_keeps_the_order_that_it_recorded(
    data: Path, training: TrainSpec, options: RunOptions
) -> None:
    from mm_config.content.inputs import in_turn

    before = inputs_of(mm_train.train(training, options).run_dir)[DATA]
    rows = manifest_rows(data)
    write_manifest(data, [{**row, "caption": "a blue circle"} for row in rows])
    accepting = RunOptions(runs_dir=options.runs_dir, accept_content=True)
    now = inputs_of(mm_train.train(training, accepting).run_dir)[DATA]
    assert before.order_key != now.order_key
    assert in_turn(before, now).order_key == before.order_key and in_turn(before, now).digest != now.digest
