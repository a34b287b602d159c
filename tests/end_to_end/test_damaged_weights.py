"""Weights that have changed since they were written: no video and no training is made of them."""

from __future__ import annotations

import re

import pytest

import mm_train
from mm_config import replace
from mm_config.cli.main import main
from mm_config.options import RunOptions
from mm_config.specs import InferSpec, TrainedBy, TrainSpec
from mm_models import blocks, checkpoint, manifest


def refused(spec: InferSpec | TrainSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a refusal, which ends with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(spec, ["experiment.py", "--runs-dir", str(options.runs_dir)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_damage_is_refused_in_one_line_by_a_generation_and_by_a_training_that_starts_there(
    training: TrainSpec,
    generation: InferSpec,
    options: RunOptions,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (blocks, manifest):
        monkeypatch.setattr(module, "BLOCK_BYTES", 2**14)
    folder = mm_train.train(training, options).checkpoint
    assert folder is not None
    (file,) = (folder / "model").iterdir()
    content = bytearray(file.read_bytes())
    content[-(2**15) : -(2**15) + 4096] = bytes(4096)
    file.write_bytes(content)
    number, count = (len(content) - 2**15) // 2**14 + 1, -(-len(content) // 2**14)
    expected = (
        f"model/{file.name} has changed since it was written, in blocks? {number}.* of {count}, each of 16384"
    )
    further = replace(training, {"start_from": TrainedBy(spec=training), "name": "further"})
    for spec, field in ((generation, "spec.high_noise"), (further, "spec.start_from")):
        line = refused(spec, options, capsys)
        assert re.search(rf"{field}: {re.escape(str(folder))}: is damaged: {expected} bytes", line), line


def test_an_older_step_under_a_newer_name_jams_no_run(training: TrainSpec, options: RunOptions) -> None:
    spec = replace(training, {"schedule.steps": 3, "checkpoint.every_steps": 1, "checkpoint.keep_last": 9})
    whole = mm_train.train(spec, options)
    assert whole.checkpoint is not None
    steps = whole.checkpoint.parent
    (steps / "step-00000003").rename(whole.run_dir / "kept")
    (steps / "step-00000001").rename(steps / "step-00000003")
    assert checkpoint.latest(steps) == steps / "step-00000002"
    assert checkpoint.verify(steps / "step-00000003") == ["it is a checkpoint of step 1, not of step 3"]
    (whole.run_dir / "result.json").unlink()
    resumed = mm_train.train(spec, RunOptions(runs_dir=options.runs_dir, resume=whole.run_dir.as_posix()))
    assert resumed.checkpoint == steps / "step-00000003" and checkpoint.verify(resumed.checkpoint) == []
