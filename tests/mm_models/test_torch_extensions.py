"""A torch_npu that can't be imported, which keeps torch itself from being imported, is told in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REASON = (
    "can't be imported, because it loads torch_npu, which fails: libhccl.so: cannot open shared object file"
)
REMEDY = (
    "source set_env.sh of CANN and ask mm doctor --device npu; without torch_npu: "
    "TORCH_DEVICE_BACKEND_AUTOLOAD=0"
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A shell in which torch_npu is installed and set_env.sh was not sourced."""
    metadata = tmp_path / "site" / "torch_npu-2.13.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch_npu\nVersion: 2.13.0\n")
    (metadata / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    (tmp_path / "site" / "torch_npu.py").write_text(
        'raise ImportError("libhccl.so: cannot open shared object file.")\n'
    )
    return {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "TORCH_DEVICE_BACKEND_AUTOLOAD": "1"}


def started(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_run_ends_with_one_line_and_status_2(environment: dict[str, str], tmp_path: Path) -> None:
    done = started(environment, "experiments/tiny_high.py", "--runs-dir", str(tmp_path / "runs"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"torch {REASON}; {REMEDY}\n"
    assert not (tmp_path / "runs").exists()


def test_doctor_tells_it_once_and_tries_nothing_that_needs_torch(environment: dict[str, str]) -> None:
    done = started(environment, "-m", "mm_config", "doctor", "--json")
    assert done.returncode == 1, done.stderr
    *others, last = json.loads(done.stdout)["checks"]
    assert last == {
        "name": "torch",
        "status": "broken",
        "detail": f"{REASON}; what needs torch was not tried",
        "remedy": REMEDY,
    }
    assert "mm-config" in {one["name"] for one in others}
    assert all("torch_npu" not in one["detail"] for one in others)
