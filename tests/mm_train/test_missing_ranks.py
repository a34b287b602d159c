"""A rank that hangs, is stopped or is killed: the others say which, in time, and leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.runs.index import open_index
from mm_config.runs.record import RunStatus
from mm_config.specs.train import TrainSpec
from tests.mm_train.forked import wait_for

FROM_STEP = 5
PROGRAM = '''"""A rank that gets stuck, is stopped or killed after a step, as the environment says."""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from mm_config import load, main
from mm_train import losses

torch.set_num_threads(1)
rank, faulty, fault = os.environ["RANK"], os.environ["FAULTY"], os.environ["FAULT"]
draw = losses.draw


def stuck(spec, levels, step, *rest):
    if rank == faulty and step == 5:
        Path(f"fault-{rank}").touch()
        if fault == "stuck":
            time.sleep(1000)
        os.kill(os.getpid(), signal.SIGSTOP if fault == "stopped" else signal.SIGKILL)
    return draw(spec, levels, step, *rest)


losses.draw = stuck
main(load(Path(__file__).with_suffix(".json")))
'''


def ranks(file: Path, runs_dir: Path, fault: str, faulty: int) -> list[subprocess.Popen[str]]:
    """Starts two ranks without a launcher, so that nobody ends one for the other."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    STORES.append(store)
    shared = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "FAULT": fault,
        "FAULTY": str(faulty),
        "WORLD_SIZE": "2",
    }
    return [
        subprocess.Popen(
            [sys.executable, str(file), "--runs-dir", str(runs_dir)],
            cwd=file.parent,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


STORES: list[TCPStore] = []
"""A store lives as long as its ranks."""


@pytest.mark.parametrize(
    ("fault", "faulty", "timeout"),
    [
        ("stuck", 1, 10),
        pytest.param("stuck", 0, 10, marks=pytest.mark.slow),
        pytest.param("stopped", 0, 10, marks=pytest.mark.slow),
        pytest.param("stopped", 1, 10, marks=pytest.mark.slow),
        pytest.param("killed", 0, 10, marks=pytest.mark.slow),
        pytest.param("killed", 1, 10, marks=pytest.mark.slow),
    ],
)
def test_the_others_say_who_is_missing(
    fault: str,
    faulty: int,
    timeout: int,
    small: TrainSpec,
    options: RunOptions,
    tmp_path: Path,
    experiment: Callable[[TrainSpec], Path],
) -> None:
    name = f"{fault}_{faulty}"
    spec = replace(small, {"name": name, "runtime.timeout_seconds": timeout})
    file = experiment(spec)
    file.write_text(PROGRAM)
    processes = ranks(file, options.runs_dir, fault, faulty)
    waiting, missing = processes[1 - faulty], processes[faulty]
    try:
        faulted = (tmp_path / f"fault-{faulty}").exists
        wait_for(lambda: faulted() or waiting.poll() is not None, 120)
        assert faulted(), waiting.communicate()[1]
        _, errors = waiting.communicate(timeout=60)
        ended = time.time()
        if fault == "stopped":
            missing.send_signal(signal.SIGKILL)
        missing.communicate(timeout=30)
    finally:
        for process in processes:
            process.kill()
    (run_dir,) = (options.runs_dir / name).iterdir()

    # A rank that hangs writes where it is; of the others the end of the one that waits is all there is.
    found = (run_dir / "stacks" / f"rank-{faulty}.txt").stat().st_mtime if fault == "stuck" else ended
    seconds = found - (tmp_path / f"fault-{faulty}").stat().st_mtime
    print(f"{fault} rank {faulty}: {seconds:.1f} s; {errors}")
    assert seconds < (1 if fault == "killed" else timeout) + max(2.0, os.getloadavg()[0] / 2)
    assert waiting.returncode == 1
    assert missing.returncode != 0
    assert "Traceback" not in errors
    (said,) = [line for line in errors.splitlines() if line.startswith(("rank ", "a rank "))]
    assert f"--resume {run_dir}" in said
    if fault == "stuck":
        assert f"rank {faulty} hangs, after step {FROM_STEP} at {file}:" in said
    if fault == "killed":
        assert said.startswith("a rank is missing")
    else:
        assert said.startswith(f"rank {faulty} ")
        stacks = {path.name: path.read_text() for path in (run_dir / "stacks").iterdir()}
        assert stacks.keys() == {"rank-0.txt", "rank-1.txt"}
        there, gone = stacks[f"rank-{1 - faulty}.txt"], stacks[f"rank-{faulty}.txt"]
        assert there.startswith(f"rank {1 - faulty}, after step {FROM_STEP}\n")
        assert gone.startswith(f"rank {faulty}, ")
        # Each thread of a rank that lives tells its place; one that is stopped can't, which is said.
        main, watch = there.split("thread MainThread\n")[1].split("thread watch\n")
        assert "torch/distributed" in main and "in speak" in watch
        if fault == "stuck":
            assert f"thread MainThread\n{file}:" in gone and "thread watch\n" in gone
        else:
            assert "It has fallen silent, as one that is stopped" in gone
    (record,) = open_index(options.runs_dir).list(name=name)
    assert record.status is (RunStatus.INTERRUPTED if faulty == 0 else RunStatus.FAILED)
