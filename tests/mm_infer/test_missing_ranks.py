"""A rank that hangs or is killed while videos are made: the other says so in one line, in time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

import mm_config
from mm_config import replace
from mm_config.specs import InferSpec
from tests.mm_train.forked import wait_for

TIMEOUT = 8
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import torch
from mm_config.cli.app import app
from mm_infer import pipeline

torch.set_num_threads(1)
rank, fault, plain = os.environ["RANK"], os.environ["FAULT"], pipeline.reached_a_step


def stuck(layout):
    if rank == "1":
        Path("faulted").touch()
        if fault == "stuck":
            time.sleep(1000)
        os.kill(os.getpid(), signal.SIGKILL)
    plain(layout)


pipeline.reached_a_step = stuck
sys.exit(app(["generate", "spec.json", "--prompt", "a red circle moving up", "--out", "x.mp4"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["stuck", "killed"])
def test_the_other_ends_with_a_line(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: InferSpec, release: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    shared = {"runtime.parallel.ulysses": 2, "runtime.parallel.timeout_seconds": TIMEOUT}
    mm_config.dump(replace(spec, shared), "spec.json")
    # Without a launcher, so that nobody ends one rank for the other.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "OMP_NUM_THREADS": "1"}
    told |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": "2", "FAULT": fault}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **told, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    waiting = processes[0]
    try:
        wait_for(lambda: Path("faulted").exists() or waiting.poll() is not None, 120)
        assert Path("faulted").exists(), waiting.communicate()[1]
        _, errors = waiting.communicate(timeout=60)
        seconds = time.time() - Path("faulted").stat().st_mtime
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    print(f"{fault}: {seconds:.1f} s; {errors}")
    assert seconds < TIMEOUT + 20
    says = {"stuck": "rank 1 hangs, after step 0 at ", "killed": "a rank is missing ("}
    last = errors.splitlines()[-1]
    assert waiting.returncode == 1 and last.startswith(says[fault]) and "Traceback" not in errors
    assert not Path("x.mp4").exists()
