"""The lock of a run folder, between real processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mm_config.runs.lock import acquire, is_held, release
from mm_config.schema.errors import UserError

TAKE = "import sys, pathlib; from mm_config.runs.lock import acquire; acquire(pathlib.Path(sys.argv[1]))"
HOLD = f"{TAKE}; print('held', flush=True); sys.stdin.read()"
RACE = """
import pathlib, sys
from mm_config.runs.lock import acquire
from mm_config.schema.errors import UserError
sys.stdin.readline()
try:
    acquire(pathlib.Path(sys.argv[1]))
except UserError:
    print("refused", flush=True)
else:
    print("held", flush=True)
sys.stdin.read()
"""


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_folder_is_held_until_it_is_released(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    acquire(tmp_path)
    assert is_held(tmp_path)
    with pytest.raises(UserError, match="is in use by process"):
        acquire(tmp_path)
    release(tmp_path)
    assert not is_held(tmp_path)
    release(tmp_path)


def test_a_living_process_keeps_the_lock_and_a_killed_one_loses_it(tmp_path: Path) -> None:
    holder = start(HOLD, tmp_path)
    assert line_of(holder) == "held"
    with pytest.raises(UserError, match=f"is in use by process {holder.pid} on"):
        acquire(tmp_path)
    holder.kill()
    holder.wait()
    assert not is_held(tmp_path)
    acquire(tmp_path)
    assert is_held(tmp_path)


def test_a_lock_of_another_machine_is_never_judged(tmp_path: Path) -> None:
    content = {"host": "another-machine", "pid": 1, "process_started_at": "0"}
    (tmp_path / "lock").write_text(json.dumps(content))
    with pytest.raises(UserError, match="process 1 on another-machine; if that has ended, delete"):
        acquire(tmp_path)


def test_a_process_id_that_was_given_out_again_does_not_hold(tmp_path: Path) -> None:
    acquire(tmp_path)
    content = json.loads((tmp_path / "lock").read_text())
    (tmp_path / "lock").write_text(json.dumps({**content, "process_started_at": "1"}))
    assert not is_held(tmp_path)


def test_of_processes_that_find_a_dead_holder_one_wins(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", TAKE, str(tmp_path)], check=True)
    racers = [start(RACE, tmp_path) for _ in range(3)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [line_of(racer) for racer in racers]
    for racer in racers:
        racer.communicate()
    assert sorted(answers) == ["held", "refused", "refused"]
