"""torchrun starts ranks again after a kill or a hang, or ends them by a signal: the run goes on by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import attach
from mm_config.runs.record import RunStatus
from mm_config.specs.train import TrainSpec
from mm_train.grace import GRACE_SECONDS
from mm_train.ledger import account_of
from tests.mm_train.forked import wait_for
from tests.mm_train.launching import two_ranks

pytestmark = pytest.mark.slow
Losses = Callable[[Path], list[float]]
FAULTY = '''"""The second rank is killed, or gets stuck, at a step, before torchrun has started it again."""

import os
import signal
import time
from pathlib import Path

import torch

from mm_config import load, main
from mm_train import losses

torch.set_num_threads(1)
draw = losses.draw


def faulty(spec, levels, step, *rest):
    fault = os.environ.get("FAULT")
    if fault == "slow":
        time.sleep(0.1)
    elif step == 7 and os.environ["RANK"] == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "stuck":
            time.sleep(1000)
    return draw(spec, levels, step, *rest)


losses.draw = faulty
if os.environ["RANK"] == "0" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "1":
    time.sleep(4)  # The other one comes first, and must not look for the rank that has ended.
main(load(Path(__file__).with_suffix(".json")))
'''


def torchrun(file: Path, runs_dir: Path, fault: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts two ranks that may be started again once."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*launcher, *arguments, str(file), "--runs-dir", str(runs_dir), "--resume", "auto"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "FAULT": fault},
    )


@pytest.fixture
def spec(small: TrainSpec) -> TrainSpec:
    return replace(small, {"checkpoint.every_steps": 5, "name": "restarted"})


@pytest.fixture
def expected(spec: TrainSpec, options: RunOptions, experiment: Callable[[TrainSpec], Path]) -> Path:
    """The same run on two ranks, which nothing interrupts."""
    first, second = two_ranks(experiment(replace(spec, "name", "undisturbed")), options.runs_dir)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    return Path(first[1].splitlines()[-1]).parent


@pytest.mark.parametrize("fault", ["killed", "stuck"])
def test_ranks_that_are_started_again_go_on_in_the_same_run(
    fault: str,
    spec: TrainSpec,
    expected: Path,
    options: RunOptions,
    losses_of: Losses,
    experiment: Callable[[TrainSpec], Path],
) -> None:
    longest = {"runtime.timeout_seconds": 20} if fault == "stuck" else {}
    spec = replace(spec, {"name": fault, **longest})
    (file := experiment(spec)).write_text(FAULTY)
    started = time.time()
    output, errors = torchrun(file, options.runs_dir, fault, "--max-restarts", "1").communicate(timeout=300)
    passed = time.time() - started
    (folder,) = (options.runs_dir / fault).iterdir()
    assert f"resuming {folder} after step 5\n" in output, errors
    assert output.splitlines()[-1] == str(folder / "result.json")
    assert losses_of(folder) == losses_of(expected)
    account = account_of(folder)
    assert account is not None
    print(f"{fault}: {passed:.1f} s passed: {account}")
    assert account.processes == 2
    # The launcher's own start and end are no part of the run.
    assert passed - 8 * max(1.0, os.getloadavg()[0] / 2) < account.whole < passed
    if fault == "stuck":
        assert "rank 1 hangs, after step 7 at " in errors
        assert {path.name for path in (folder / "stacks").iterdir()} == {"rank-0.txt", "rank-1.txt"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_torchrun_saves_the_state_and_the_same_line_goes_on(
    number: signal.Signals,
    spec: TrainSpec,
    expected: Path,
    options: RunOptions,
    losses_of: Losses,
    experiment: Callable[[TrainSpec], Path],
) -> None:
    spec = replace(spec, "name", f"signal_{number}")
    (file := experiment(spec)).write_text(FAULTY)
    handled = ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"]
    launcher = torchrun(file, options.runs_dir, "slow", *handled)
    runs = options.runs_dir / str(spec.name)
    wait_for(lambda: any(path.read_bytes().count(b"\n") > 2 for path in runs.glob("*/metrics.jsonl")), 200)
    launcher.send_signal(number)
    sent = time.monotonic()
    output, errors = launcher.communicate(timeout=300)
    seconds = time.monotonic() - sent
    (folder,) = runs.iterdir()
    done = len(losses_of(folder))
    print(f"{number!r}: saved after step {done} and gone in {seconds:.1f} s")
    assert seconds < GRACE_SECONDS
    assert launcher.returncode == 1
    assert f"stopped after step {done}" in output, errors
    assert attach(folder).record.status is RunStatus.INTERRUPTED
    again = torchrun(file, options.runs_dir, "none")
    assert f"resuming {folder} after step {done}\n" in again.communicate(timeout=300)[0]
    assert losses_of(folder) == losses_of(expected)
