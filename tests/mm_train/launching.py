"""Starts two gloo ranks, each a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]


def torchrun(file: Path, runs_dir: Path) -> tuple[int, str, str]:
    """Starts two ranks as a user does; returns the status, stdout and stderr of both together."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(file), "--runs-dir", str(runs_dir)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    return done.returncode, done.stdout, done.stderr


def two_ranks(file: Path, runs_dir: Path) -> list[tuple[int, str, str]]:
    """Starts two ranks without the launcher, which ends all of them with the first that fails.

    Like the launcher's, the store is this process's: it takes a free port and keeps it.

    Returns:
        Status, stdout and stderr of each.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(file), "--runs-dir", str(runs_dir)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=200) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]
