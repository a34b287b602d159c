"""The lock of a run folder, between real processes."""

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mm_config.runs import lock
from mm_config.runs.lock import acquire, is_held, release
from mm_config.schema.errors import UserError
from tests.mm_config.forks import alone, at_once, killed_before

HOLD = """
import pathlib, sys
from mm_config.runs.lock import acquire
acquire(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def left_by(content: str, folder: Path, number: int = 1) -> None:
    """A lock that no living process has."""
    (folder / f"lock-{number}").mkdir()
    (folder / f"lock-{number}" / "holder").write_text(content)


def locks(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_folder_is_held_until_it_is_released(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    acquire(tmp_path)
    assert is_held(tmp_path)
    with pytest.raises(UserError, match=f"the run is in use by process {os.getpid()} on"):
        acquire(tmp_path)
    release(tmp_path)
    assert not is_held(tmp_path)
    release(tmp_path)
    acquire(tmp_path)
    assert locks(tmp_path) == ["lock-1", "lock-2"]
    release(tmp_path)


def test_a_living_process_keeps_the_lock_and_a_killed_one_loses_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    for take_over in (False, True):
        with pytest.raises(UserError, match=f"is in use by process {holder.pid} on [^;]*$"):
            acquire(tmp_path, take_over=take_over)
    holder.kill()
    holder.communicate()
    assert not is_held(tmp_path)
    acquire(tmp_path)
    release(tmp_path)


def test_a_moved_folder_stays_held(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    acquire(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert is_held(tmp_path / "there")
    release(tmp_path / "there")
    assert not is_held(tmp_path / "there")


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    acquire(tmp_path)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writing, b"!")
            time.sleep(60)
        finally:
            os._exit(0)
    try:
        os.read(reading, 1)
        lock._close_all()  # pyright: ignore[reportPrivateUsage]  # As the holder's end does.
        assert not is_held(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def test_a_lock_of_another_machine_is_taken_over_when_somebody_says_that_it_has_ended(tmp_path: Path) -> None:
    left_by("1 another-machine some-boot", tmp_path)
    assert is_held(tmp_path)
    message = "in use by process 1 on another-machine; if that has ended, add --take-over"
    with pytest.raises(UserError, match=message):
        acquire(tmp_path, option="--take-over")
    acquire(tmp_path, take_over=True)
    assert is_held(tmp_path)
    release(tmp_path)


def test_a_lock_of_another_machine_is_kept_where_the_file_system_says_that_it_lives(tmp_path: Path) -> None:
    left_by("1 another-machine some-boot", tmp_path)
    with (tmp_path / "lock-1" / "holder").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"in use by process 1 on another-machine$"):
            acquire(tmp_path, take_over=True)


@pytest.mark.parametrize(
    "boot", ["another-boot", Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
)
def test_a_machine_that_was_started_again_and_a_container_that_was_made_again_hold_nothing(
    tmp_path: Path, boot: str
) -> None:
    left_by(f"1 {platform.node() if boot == 'another-boot' else 'another-container'} {boot}", tmp_path)
    assert not is_held(tmp_path)
    acquire(tmp_path)
    release(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "null", "\0" * 2000, "1 a", "x a b", "1 a\x1b[2J b", "\udcff"]
)
def test_a_damaged_lock_that_no_process_has_keeps_nobody_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock-7").mkdir()
    (tmp_path / "lock-7" / "holder").write_bytes(content.encode(errors="surrogateescape"))
    assert not is_held(tmp_path)
    acquire(tmp_path)
    assert locks(tmp_path) == ["lock-7", "lock-8"]
    release(tmp_path)


def test_what_is_no_lock_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "lock-1").write_text("a file")
    (tmp_path / "lock-2").symlink_to(tmp_path / "nothing")
    (tmp_path / "lock-3").mkdir()
    (tmp_path / "lock-4").mkdir()
    os.mkfifo(tmp_path / "lock-4" / "holder")
    (tmp_path / "lock-x").mkdir()
    assert not is_held(tmp_path)
    acquire(tmp_path)
    assert is_held(tmp_path)
    release(tmp_path)


def test_without_locks_of_the_file_system_a_holder_that_did_not_end_well_has_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    alone(lambda: acquire(tmp_path))
    with pytest.raises(UserError, match="if that has ended, add --take-over"):
        acquire(tmp_path, option="--take-over")
    acquire(tmp_path, take_over=True)
    release(tmp_path)
    acquire(tmp_path)
    release(tmp_path)


def test_a_process_of_the_version_before_numbers_keeps_its_run_while_it_lives(tmp_path: Path) -> None:
    holder = subprocess.Popen(["sleep", "60"])
    ticks = Path(f"/proc/{holder.pid}/stat").read_text().rpartition(")")[2].split()[19]
    told = {"host": platform.node(), "pid": holder.pid, "process_started_at": ticks}
    (tmp_path / "lock").write_text(json.dumps(told))
    try:
        for take_over in (False, True):
            with pytest.raises(UserError, match=f"is in use by process {holder.pid} on [^;]*$"):
                acquire(tmp_path, take_over=take_over)
        assert is_held(tmp_path)
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(
            UserError, match="if that has ended"
        ):  # A zombie, which a parent may leave for long.
            acquire(tmp_path)
    finally:
        holder.kill()
        holder.wait()
    assert not is_held(tmp_path)
    (tmp_path / "lock").write_text(json.dumps({**told, "pid": os.getpid()}))  # A number that is used again.
    assert not is_held(tmp_path)
    (tmp_path / "lock").write_text(json.dumps({**told, "host": "another-machine"}))
    with pytest.raises(UserError, match="on another-machine; if that has ended, add --take-over"):
        acquire(tmp_path, option="--take-over")
    acquire(tmp_path, take_over=True)
    release(tmp_path)
    assert not is_held(tmp_path)  # The old file counts no more.


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"host": 1}', '{"host": "HOST", "pid": 1, "process_started_at": "x"}']
)
def test_a_damaged_lock_of_the_version_before_numbers_keeps_nobody_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content.replace("HOST", platform.node()))
    assert not is_held(tmp_path)
    acquire(tmp_path)
    release(tmp_path)


def test_of_processes_that_find_a_dead_holder_one_wins(tmp_path: Path) -> None:
    alone(lambda: acquire(tmp_path))
    answers = at_once([lambda: acquire(tmp_path)] * 8)
    refused = [answer for answer in answers if answer != "None"]
    assert len(refused) == 7
    for line in refused:
        assert line.startswith(f"{tmp_path}: ") and "\n" not in line
        assert "is in use by process" in line or "has just taken the run" in line


def test_a_process_that_is_killed_while_it_takes_over_keeps_nobody_out(tmp_path: Path) -> None:
    alone(lambda: acquire(tmp_path))
    number = 0
    while killed_before(number := number + 1, lambda: acquire(tmp_path)):
        assert not is_held(tmp_path)
        assert alone(lambda: acquire(tmp_path)) == "None"
    assert number > 3


def test_a_full_disk_keeps_nobody_out_of_a_run_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone(lambda: acquire(tmp_path))
    before = locks(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(Path, "rename", lambda *_: os.stat(tmp_path / "no room"))
        with pytest.raises(FileNotFoundError):
            acquire(tmp_path)
    assert locks(tmp_path) == before
    acquire(tmp_path)
    release(tmp_path)
