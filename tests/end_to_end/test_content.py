"""Three contents under one name: the alarm, whose weights a generation takes, what counts as equal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import mm_train
from mm_config import replace, spec_hash
from mm_config.options import RunOptions, StoppedEarly
from mm_config.reproducing.reproduce import reproduce
from mm_config.running.runners import run
from mm_config.runs import attach, read_inputs
from mm_config.schema import UserError
from mm_config.specs import InferSpec, TrainSpec
from tests.end_to_end.clips import DATA, fill, inputs_of, manifest_rows, write_manifest


def accepting(options: RunOptions) -> RunOptions:
    return RunOptions(runs_dir=options.runs_dir, accept_content=True)


def test_three_contents_under_one_name(
    data: Path,
    training: TrainSpec,
    generation: InferSpec,
    options: RunOptions,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained = [mm_train.train(training, options).run_dir]
    for content in (2, 3):
        fill(data, content)
        with pytest.raises(UserError) as refused:
            mm_train.train(training, options)
        (line,) = str(refused.value).splitlines()
        assert line.startswith(f"{DATA}: my/clips (revision 1) is not what it was in clips/")
        assert "b.mp4 is sha256" in line and f"c.mp4 is 'a red square {content}', was " in line
        assert "a.mp4" not in line and line.endswith("or take it as it is by options.accept_content")
        trained.append(mm_train.train(training, accepting(options)).run_dir)
    records = [attach(folder).record for folder in trained]
    assert len({record.made_of for record in records}) == 3
    assert len({(record.spec_hash, record.exact_hash) for record in records}) == 1

    made: dict[int, Path] = {}
    for content in (2, 1):  # Whatever is there today says whose weights are meant.
        fill(data, content)
        capsys.readouterr()
        made[content] = run(generation, options).run_dir
        taken = inputs_of(made[content])["spec.high_noise"]
        assert taken.details["run"] == "/".join(trained[content - 1].parts[-2:])
        assert (taken.details["step"], taken.details["weights"]) == (2, "last")
        assert "spec.high_noise: 3 finished runs made these weights; " in capsys.readouterr().out
    assert len({attach(folder).record.made_of for folder in made.values()}) == 2

    fill(data, 2)  # A repetition takes the run that was taken then.
    again = reproduce(attach(made[1]), options)
    assert again is not None and again.comparison.identical
    assert inputs_of(again.reproduced)["spec.high_noise"] == inputs_of(made[1])["spec.high_noise"]

    shutil.rmtree(trained[0])
    capsys.readouterr()
    fill(data, 1)
    run(generation, options)
    assert "the newest: none was made of today's inputs (spec.data.dataset is other content: b.mp4" in (
        capsys.readouterr().out
    )


def test_a_manifest_that_is_only_touched_is_the_same_content(
    data: Path, training: TrainSpec, options: RunOptions
) -> None:
    first = attach(mm_train.train(training, options).run_dir).record
    rows = manifest_rows(data)
    for change in (
        lambda: write_manifest(data, rows, separators=(" ,  ", ": ")),
        lambda: write_manifest(data, rows[::-1]),
        lambda: write_manifest(data, [{**row, "aesthetic": index} for index, row in enumerate(rows)]),
        lambda: (
            [(data / "moved").mkdir(), (data / "a.mp4").rename(data / "moved" / "a.mp4")]
            and write_manifest(data, [{**rows[0], "path": "moved/a.mp4"}, *rows[1:]])
        ),
        lambda: (data / "b.mp4").touch(),
    ):
        change()
        assert attach(mm_train.train(training, options).run_dir).record.made_of == first.made_of
    (data / "b.mp4").unlink()
    with pytest.raises(UserError, match=r"b\.mp4 is missing, was sha256"):
        mm_train.train(training, options)


def test_if_needed_goes_by_what_a_run_was_made_of(
    data: Path,
    training: TrainSpec,
    generation: InferSpec,
    options: RunOptions,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needed = RunOptions(runs_dir=options.runs_dir, if_needed=True, accept_content=True)
    first = run(training, needed)
    video = run(generation, needed)
    assert not first.reused and not video.reused
    assert run(training, needed).run_dir == first.run_dir and run(generation, needed).run_dir == video.run_dir
    fill(data, 2)
    capsys.readouterr()
    second = run(training, needed)
    said = capsys.readouterr().out
    assert not second.reused and "has an equal spec, but spec.data.dataset is other content: b.mp4 is" in said
    newer = run(generation, needed)
    assert not newer.reused and inputs_of(newer.run_dir)["spec.high_noise"].details["run_dir"] == str(
        second.run_dir
    )
    assert run(generation, needed).run_dir == newer.run_dir
    fill(data, 1)
    assert run(training, needed).run_dir == first.run_dir

    status = json.loads((first.run_dir / "status.json").read_text())
    del status["made_of"]  # As runs were before content was recorded.
    (first.run_dir / "status.json").write_text(json.dumps(status))
    (first.run_dir / "inputs.json").unlink()
    shutil.rmtree(second.run_dir)
    (options.runs_dir / "index.sqlite").unlink()
    assert not run(training, needed).reused
    assert "its content is not recorded" in capsys.readouterr().out


def test_a_digest_in_the_spec_pins_the_content(data: Path, training: TrainSpec, options: RunOptions) -> None:
    found = inputs_of(mm_train.train(training, options).run_dir)[DATA].digest
    fill(data, 2)
    with pytest.raises(
        UserError, match=rf"spec\.data\.dataset\.digest: is {found}, but the content found is"
    ):
        mm_train.train(replace(training, "data.dataset.digest", found), options)
    with pytest.raises(UserError, match=r"spec\.data\.dataset\.digest: must be 64 hex digits in lower case"):
        mm_train.train(replace(training, "data.dataset.digest", found[:12]), options)
    fill(data, 1)
    pinned = replace(training, "data.dataset.digest", found)
    assert spec_hash(pinned) != spec_hash(training)
    mm_train.train(pinned, options)


def test_another_image_under_one_path_is_another_made_of(tmp_path: Path, generation: InferSpec) -> None:
    from mm_infer.content import given_inputs

    image = tmp_path / "first.png"
    spec = replace(generation, "samples.images", (str(image),))
    digests = set()
    for content in (b"one", b"two"):
        image.write_bytes(content)
        digests.add(given_inputs(spec)["spec.samples.images.0"].digest)
    assert len(digests) == 2
    image.unlink()
    with pytest.raises(UserError, match=r"spec\.samples\.images\.0: .*first\.png is no file"):
        given_inputs(spec)


def test_a_run_goes_on_with_its_content_and_its_order(
    data: Path, training: TrainSpec, options: RunOptions
) -> None:
    def trained(to: Path, **given: Any) -> list[float]:
        return [
            json.loads(line)["loss"]
            for line in (mm_train.train(spec, RunOptions(runs_dir=to, **given)).run_dir / "metrics.jsonl")
            .read_text()
            .splitlines()
        ]

    spec = replace(training, {"schedule.steps": 6, "checkpoint.every_steps": 3})
    expected = trained(options.runs_dir / "whole")
    rows = manifest_rows(data)

    def stopped(to: Path) -> None:
        with pytest.raises(StoppedEarly):
            mm_train.train(spec, RunOptions(runs_dir=to, stop_after=3))

    stopped(options.runs_dir / "moved")
    (data / "moved").mkdir()
    for row in rows:
        (data / row["path"]).rename(data / "moved" / row["path"])
    write_manifest(data, [{**row, "path": f"moved/{row['path']}"} for row in rows])
    assert trained(options.runs_dir / "moved", resume="latest") == expected  # Paths order a new run alone.
    fill(data, 1)

    stopped(options.runs_dir / "other")
    write_manifest(data, rows[::-1])
    refused = f"{DATA}: the samples come in another order .*; options.accept_content goes on in the order"
    with pytest.raises(UserError, match=refused):
        trained(options.runs_dir / "other", resume="latest")
    fill(data, 2)
    with pytest.raises(
        UserError, match=r"my/clips \(revision 1\) is not what it was when the run was started: b"
    ):
        trained(options.runs_dir / "other", resume="latest")
    before = inputs_of(next((options.runs_dir / "other" / "clips").iterdir()))[DATA]
    assert trained(options.runs_dir / "other", resume="latest", accept_content=True)[:3] == expected[:3]
    after = inputs_of(next((options.runs_dir / "other" / "clips").iterdir()))[DATA]
    assert after.details["in_turn"][0] == before.digest and after.digest != before.digest


def test_a_run_whose_content_is_not_recorded_goes_on_over_the_same_rows(
    data: Path, training: TrainSpec, options: RunOptions
) -> None:
    spec = replace(training, "schedule.steps", 4)
    with pytest.raises(StoppedEarly):
        mm_train.train(spec, RunOptions(runs_dir=options.runs_dir, stop_after=2))
    (folder,) = (options.runs_dir / "clips").iterdir()
    (folder / "inputs.json").unlink()
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "made_of": None}))
    resuming = RunOptions(runs_dir=options.runs_dir, resume=str(folder))
    (options.runs_dir / "index.sqlite").unlink()
    rows = manifest_rows(data)
    write_manifest(data, rows[::-1])
    with pytest.raises(UserError, match="the order's key"):
        mm_train.train(spec, resuming)
    write_manifest(data, rows)
    mm_train.train(spec, resuming)
    assert attach(folder).record.made_of is None and read_inputs(folder) is None


def test_a_run_that_lost_its_list_is_not_held_against_itself(
    data: Path, training: TrainSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(training, "schedule.steps", 4)
    with pytest.raises(StoppedEarly):
        mm_train.train(spec, RunOptions(runs_dir=options.runs_dir, stop_after=2))
    (folder,) = (options.runs_dir / "clips").iterdir()
    (folder / "inputs.json").unlink()
    rows = manifest_rows(data)
    fill(data, 2)
    write_manifest(data, rows)  # The key of the order knows captions.
    capsys.readouterr()
    mm_train.train(spec, RunOptions(runs_dir=options.runs_dir, resume=str(folder)))
    (told,) = (line for line in capsys.readouterr().out.splitlines() if line.endswith(" can't be checked"))
    assert told.startswith(f"what clips/{folder.name} was made of is not recorded: whether it is the same")
    assert attach(folder).record.made_of is None
