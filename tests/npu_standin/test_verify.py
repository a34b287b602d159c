"""The script for whoever has a card runs whole on the device, so that it works when a card is there."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tests.on_device.checks import CHECKS

ROOT = Path(__file__).parents[2]


def test_every_check_for_hardware_passes(tmp_path: Path) -> None:
    out = tmp_path / "verified.json"
    command = [sys.executable, "scripts/verify_on_device.py", "--device", "npu", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    report = json.loads(out.read_text())
    assert report["device"]["type"] == "npu"
    assert report["versions"]["torch_npu"] == version("torch_npu")
    assert report["environment"]["TORCH_NPU_FALLBACK_CPU_DISABLE"] == "1"
    assert {check["name"]: check["status"] for check in report["checks"]} == dict.fromkeys(
        [check.name for check in CHECKS], "passed"
    )
