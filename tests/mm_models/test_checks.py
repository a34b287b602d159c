"""What doctor asks of torch and the libraries of Wan's encoders, and the verb with all that is installed."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from mm_config.cli.app import app
from mm_config.doctor.checks import BROKEN, OK, Check, CheckStatus, DoctorOptions
from mm_models.checks import devices, torch_import


def test_torch_and_its_devices() -> None:
    (found,) = torch_import(DoctorOptions())
    assert found.status is OK
    assert found.detail.startswith(torch.__version__)
    (found,) = devices(DoctorOptions())
    assert found.status is OK
    assert torch.accelerator.is_available() or found.detail.startswith("cpu with ")


def test_all_checks_as_lines_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--runs-dir", str(tmp_path))
    assert app(["doctor", *place]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert app(["doctor", "--json", *place]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["works"] is True
    checks = [Check(**{**row, "status": CheckStatus(row["status"])}) for row in report["checks"]]
    assert Check("transformers", OK, version("transformers")) in checks
    assert {"Python", "mm-models", "index", "torch", "devices", "diffusers", "reader pyav"} <= {
        check.name for check in checks
    }
    assert f"ok       diffusers {version('diffusers')}" in lines
    assert len(lines) == len(checks)
    for line, check in zip(lines, checks, strict=True):
        assert line.startswith(f"{check.status.value:<7}  {check.name}")
        assert not check.remedy or line.endswith(f" — {check.remedy}")


def test_one_broken_check_is_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM_RUNS_URL", "no database")
    assert app(["doctor", "--json", "--runs-dir", str(tmp_path)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["works"] is False
    assert [row["name"] for row in report["checks"] if row["status"] == BROKEN.value] == ["index"]
