"""What an imported run of MindSpeed-MM is launched as, and what stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mm_config.cli.app import app
from mm_config.cli.verbs import import_
from mm_config.importing.mindspeed.importer import import_files
from mm_config.importing.verdict import Verdict
from mm_config.schema.errors import Problem
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec
from tests.mm_config.importing.mindspeed_files import told
from tests.mm_config.importing.mindspeed_small import FLAGS, INFERENCE, MODEL, launch, written


def test_what_can_not_be_run_is_one_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    problems = [Problem("spec.a", "is not carried out"), Problem("spec.b", "neither")]
    monkeypatch.setattr(import_, "refusals", lambda spec: problems)
    files = map(str, written(tmp_path, model__json=MODEL))
    assert app(["import", "mindspeed", *files, "--out", str(tmp_path / "x.py")]) == 0
    block = "\n\ncan't be run yet (2)\n  spec.a: is not carried out\n  spec.b: neither\n\n"
    assert block in capsys.readouterr().out


def test_the_program_decides_what_an_import_is(tmp_path: Path) -> None:
    files = {"model__json": MODEL, "inference_model__json": INFERENCE}
    spec, _ = import_files(written(tmp_path, **files, run__sh=launch(FLAGS, "inference_sora.py")))
    assert isinstance(spec, InferSpec) and spec.sampler.steps == 50
    script = launch(f"{FLAGS} --save ./your_folder")
    spec, report = import_files(written(tmp_path, **files, run__sh=script))
    assert isinstance(spec, TrainSpec) and spec.schedule.steps == 100 and "--runs-dir" not in report.flags
    assert "say it by --runs-dir" in told(report, Verdict.OPEN, "--save")
