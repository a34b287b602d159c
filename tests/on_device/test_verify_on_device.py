"""The script for whoever has a card, run on the CPU, so that it can't rot; and what it says of mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.verify_on_device import described, main, result_of
from tests.on_device.checks import CHECKS
from tests.on_device.comparing import CPU, DeviceCheck, Outputs, Place

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "verify_on_device.py"


def started(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)


def test_it_runs_on_a_cpu_and_writes_versions_environment_and_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "2")
    out = tmp_path / "verified.json"
    done = started("--device", "cpu", "--out", str(out), "--only", "attention_float32", "rotation_bfloat16")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == str(out)
    report = json.loads(out.read_text())
    assert report["passed"] is True
    assert report["device"]["type"] == "cpu" and len(report["device"]["names"]) == 1
    assert report["versions"]["torch"] == torch.__version__
    assert report["versions"].keys() >= {"python", "cann", "torch_npu"}
    assert report["environment"] == {"TASK_QUEUE_ENABLE": "2", "TORCH_NPU_FALLBACK_CPU_DISABLE": "1"}
    attention, rotation = report["checks"]
    # Another order of summation, so that something was compared.
    assert 0 < attention["worst_error"] <= attention["tolerance"] == 1e-4
    assert 0 < rotation["worst_error"] <= rotation["tolerance"] == 0.02
    assert all(check["status"] == "passed" and check["device_seconds"] > 0 for check in report["checks"])

    again = started("--device", "cpu", "--out", str(out))
    assert (again.returncode, again.stderr) == (2, f"--out: {out} exists already; choose another name\n")


def test_a_device_that_is_not_there_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["verify", "--device", "npu", "--out", str(tmp_path / "verified.json")])
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert main() == 2
    assert capsys.readouterr().err == "--device: device 'npu' is not available here; available: auto, cpu\n"
    assert not list(tmp_path.iterdir())


def planted(value: object, ranks: int = 1) -> DeviceCheck:
    """A check whose outcome on the device is a value, or an error that it raises."""

    def compute(place: Place) -> Outputs:
        if place.expected:
            return {"a": torch.ones(3), "b": torch.full((3,), 2.0)}
        if isinstance(value, Exception):
            raise value
        return {"a": torch.ones(3), "b": torch.as_tensor(value)}

    return DeviceCheck("planted", "a mistake", compute, 1e-3, ranks)


@pytest.mark.parametrize(
    ("value", "status", "error"),
    [
        ([2.0, 2.0, 2.001], "passed", pytest.approx(5e-4, rel=1e-3)),
        ([2.0, 2.0, 2.01], "failed", pytest.approx(5e-3, rel=1e-3)),
        ([2.0, 2.0, float("nan")], "failed", None),
        ([2.0, 2.0], "failed", None),
    ],
)
def test_a_difference_is_measured_and_fails_above_the_tolerance(
    value: list[float], status: str, error: object
) -> None:
    found = result_of(planted(value), CPU)
    assert (found["status"], found["worst_error"], found["worst_in"]) == (status, error, "b")
    json.dumps(found, allow_nan=False)


def test_a_check_that_raises_fails_with_its_reason_and_its_trace() -> None:
    found = result_of(planted(RuntimeError("no kernel for it")), CPU)
    assert (found["status"], found["reason"]) == ("failed", "RuntimeError: no kernel for it")
    assert "Traceback" in found["trace"]


def test_every_check_has_a_name_of_its_own() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names) == 17
    assert [check.name for check in CHECKS if check.ranks > 1] == ["two_ranks"]
    assert described(CPU)["device"]["type"] == "cpu"
