"""Signals at random times: none is lost, none shows a traceback, and a training saves its state first."""

from __future__ import annotations

import ctypes
import os
import pty
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Timer

import pytest

from mm_config import dump, replace
from mm_config.cli.main import main
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import attach
from mm_config.runs.record import RunStatus
from mm_config.specs.train import TrainSpec
from mm_models import checkpoint, stopping
from mm_models.stopping import stop_requests
from tests.mm_train.forked import Child, carry_out, forked, wait_for
from tests.mm_train.signalled import KINDS, LONGEST_DRAIN, MM, SEED, Outcome, Shot, load, send, table

Losses = Callable[[Path], list[float]]
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PROGRAM = 'from mm_config import load, main\n\nmain(load("endless.json"))\n'
RIGHT = {"ended", "drained", "python", "had finished"}


@pytest.fixture(autouse=True)
def not_ignored() -> Iterator[None]:
    """Children get signals that are ignored, as in jobs in a shell's background, as ignored ones."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def endless(small: TrainSpec) -> TrainSpec:
    return replace(small, {"schedule.steps": 100_000, "checkpoint.every_steps": 50_000})


def metrics_of(runs_dir: Path, label: str = "*") -> list[Path]:
    """The metrics of runs that have done a step."""
    return [file for file in runs_dir.glob(f"{label}/*/metrics.jsonl") if file.stat().st_size]


def has_begun(runs_dir: Path) -> bool:
    """Whether a run has done a step."""
    return bool(metrics_of(runs_dir))


def check_saved(run_dir: Path, losses: list[float]) -> None:
    """A drained run is interrupted, and its newest checkpoint is of the last step that was logged."""
    assert attach(run_dir).record.status is RunStatus.INTERRUPTED
    last = checkpoint.latest(run_dir / "checkpoints")
    assert last is not None
    assert checkpoint.read_state(last)["step"] == len(losses)


def blocked_in_c() -> None:
    """Waits for ever where Python runs no handlers, as in a collective or for a device."""
    mutex = ctypes.create_string_buffer(64)
    library = ctypes.CDLL(None)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


@pytest.mark.parametrize("number", KINDS, ids=lambda number: number.name)
def test_a_second_signal_ends_a_process_that_is_stuck(number: signal.Signals, tmp_path: Path) -> None:
    def body() -> None:
        with stop_requests():
            (tmp_path / "ready").touch()
            blocked_in_c()

    child = forked(body, tmp_path / "output")
    with child.killed_after_all():
        wait_for((tmp_path / "ready").exists)
        time.sleep(0.05)
        os.kill(child.pid, number)
        time.sleep(0.05)
        assert os.waitpid(child.pid, os.WNOHANG) == (0, 0)
        os.kill(child.pid, number)
        assert child.end() == (128 + number, "", "interrupted\n")


def test_what_torchrun_passes_on_is_the_same_signal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(stopping, "_ECHO_SECONDS", 0.3)

    def body() -> None:
        with stop_requests() as requested:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            print(requested())
            time.sleep(0.4)
            signal.raise_signal(signal.SIGTERM)
            time.sleep(5)

    assert forked(body, tmp_path / "output").end() == (143, "2\n", "interrupted\n")


def test_a_request_that_comes_too_late_for_the_last_step_acts_after_it(tmp_path: Path) -> None:
    def body() -> None:
        with stop_requests():
            signal.raise_signal(signal.SIGINT)
            print("finished")
        print("went on")

    assert forked(body, tmp_path / "output").end() == (130, "finished\n", "interrupted\n")


def test_signals_that_are_ignored_stay_so(tmp_path: Path) -> None:
    def body() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with stop_requests() as requested:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGINT)
            print(requested())

    assert forked(body, tmp_path / "output").end() == (0, "0\n", "")


def test_a_closed_terminal_saves_the_state(
    endless: TrainSpec, options: RunOptions, losses_of: Losses
) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        carry_out(lambda: main(endless, ["experiment.py", "--runs-dir", str(options.runs_dir)]))
    child = Child(pid, None)
    with child.killed_after_all():
        drain(terminal, lambda: bool(metrics_of(options.runs_dir, endless.name)))
        os.close(terminal)
        assert child.status() == 129
    (metrics,) = metrics_of(options.runs_dir, endless.name)
    check_saved(metrics.parent, losses_of(metrics.parent))


SWALLOWING = {
    "except": """
import time
while True:
    try:
        time.sleep(0.01)
    except BaseException:
        pass
""",
    "callback": """
import ctypes
import time
callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: time.sleep(0.01) or 0)
while True:
    ctypes.CDLL(None).qsort(ctypes.create_string_buffer(8), 8, 1, callback)
""",
    "finaliser": """
import time
class Slow:
    def __del__(self):
        time.sleep(0.05)
while True:
    Slow()
""",
    "thread": """
import threading, time
def work():
    while True:
        time.sleep(0.01)
thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
}


@pytest.mark.parametrize("way", SWALLOWING)
def test_nothing_swallows_ctrl_c(way: str, tmp_path: Path) -> None:
    """Before a training drains, as while libraries are imported, Ctrl-C is no exception."""
    body = 'from mm_config import main\nprint("ready", flush=True)\n'
    (tmp_path / "program.py").write_text(body + SWALLOWING[way])
    command = [sys.executable, "program.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        killer = Timer(60 + LONGEST_DRAIN * load(), process.kill)
        killer.start()
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
        killer.cancel()
    assert (process.returncode, stderr) == (130, "interrupted\n")


def test_a_program_that_only_uses_mm_keeps_pythons_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import signal, mm_config\nassert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    subprocess.run([sys.executable, "program.py"], cwd=tmp_path, check=True)


def test_short_commands_at_random_times(tmp_path: Path) -> None:
    check(shots_at_commands(random.Random(SEED), 6), tmp_path)


@pytest.mark.slow
def test_two_hundred_signals_at_random_times(endless: TrainSpec, tmp_path: Path) -> None:
    """A hundred at commands, and a hundred at trainings: in their first seconds, or in their steps."""
    dice = random.Random(SEED)
    dump(endless, tmp_path / "endless.json")
    (tmp_path / "program.py").write_text(PROGRAM)
    trainings: list[Shot] = []
    for place in range(100):
        command = [sys.executable, "program.py", "--runs-dir", f"runs{place}"]
        runs_dir = tmp_path / f"runs{place}"
        begun = partial(has_begun, runs_dir) if place % 3 == 0 else None
        after = dice.uniform(0, 1) if begun else dice.uniform(0.001, 6)
        trainings.append(Shot("training", command, dice.choice(KINDS), after, again(dice), begun))
    check([*shots_at_commands(dice, 100), *trainings], tmp_path)


def shots_at_commands(dice: random.Random, count: int) -> list[Shot]:
    """Signals from the first millisecond of a short command on."""
    file = str(EXPERIMENTS / "tiny_high.py")
    commands = {verb: [MM, verb, file] for verb in ("hash", "plan", "show")}
    commands["--dry-run"] = [sys.executable, file, "--dry-run"]
    return [
        Shot(name, commands[name], dice.choice(KINDS), dice.uniform(0.001, 0.25), again(dice))
        for name in dice.choices(list(commands), k=count)
    ]


def again(dice: random.Random) -> float | None:
    """Once or twice, with a pause in which a person may press keys."""
    return dice.choice([None, dice.uniform(0, 0.5)])


def check(shots: list[Shot], folder: Path) -> None:
    """Sends all signals and prints the table of what became of the programs."""
    with ThreadPoolExecutor(2) as pool:
        outcomes: list[Outcome] = list(pool.map(lambda shot: send(shot, folder), shots))
    print(f"SIGNAL_SEED={SEED}")
    print(table(outcomes))
    assert [one.word for one in outcomes if one.word not in RIGHT] == []


def drain(terminal: int, until: Callable[[], bool]) -> None:
    """Reads a terminal until something holds."""
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline, "it took too long"
        if select.select([terminal], [], [], 0.01)[0]:
            os.read(terminal, 4096)
