"""What a killed process leaves is removed when it has provably ended, and nothing else is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_config.durable import leftovers
from mm_config.durable.leftovers import is_abandoned, remove_abandoned, size_of, stage_of, stages
from mm_config.durable.writing import discard, staged_folder


def killed(work: Callable[[], object]) -> int:
    """Does a work in a process that is killed at its end."""
    if (pid := os.fork()) == 0:
        work()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


def test_a_stage_is_abandoned_once_its_process_has_ended(tmp_path: Path) -> None:
    killed(lambda: stage_of(tmp_path / "dead").mkdir())
    mine = stage_of(tmp_path / "mine")
    mine.touch()
    (dead,) = (path for path in tmp_path.iterdir() if path != mine)
    assert is_abandoned(dead) and not is_abandoned(mine)
    assert remove_abandoned(stages(tmp_path)) == [dead]
    assert list(tmp_path.iterdir()) == [mine]


def test_a_process_that_got_the_number_of_an_ended_one_is_another(tmp_path: Path) -> None:
    mine = stage_of(tmp_path / "x").name
    machine, pid, start = re.fullmatch(r"\.x\.(\w+)-(\w+)-(\w+)-\w+\.tmp", mine).groups()  # pyright: ignore
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert (int(pid, 16), int(start, 16)) == (os.getpid(), ticks)
    earlier = tmp_path / f".x.{machine}-{pid}-{ticks - 1:x}-0123.tmp"
    assert is_abandoned(earlier)
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = int(Path(f"/proc/{alive.pid}/stat").read_text().rpartition(")")[2].split()[19])
    assert not is_abandoned(tmp_path / f".x.{machine}-{alive.pid:x}-{other:x}-0123.tmp")
    alive.communicate(b"\n")


@pytest.mark.parametrize(
    "name",
    [
        "x.tmp",
        ".x.0123abcd.tmp",
        "step-00000008.tmp",
        ".x.{other}-1-1-0123.tmp",
        ".x.00000000-1-1-0123.tmp",
        ".x.{here}-1-0-0123.tmp",
        ".x.{here}-{huge}-1-0123.tmp",
    ],
)
def test_what_tells_no_process_of_this_machine_is_never_judged(tmp_path: Path, name: str) -> None:
    here = re.fullmatch(r"\.x\.(\w+)-.*", stage_of(tmp_path / "x").name)[1]  # pyright: ignore
    stage = tmp_path / name.format(other="f" * 8, here=here, huge="f" * 20)
    stage.mkdir()
    (stage / "file").write_bytes(bytes(5))
    assert not is_abandoned(stage)
    assert remove_abandoned(stages(tmp_path)) == [] and size_of(stage) == 5


def test_where_the_system_does_not_tell_processes_nothing_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_machine", lambda: "0" * 8)
    killed(lambda: stage_of(tmp_path / "x").touch())
    assert remove_abandoned(stages(tmp_path)) == []


def test_who_writes_next_removes_what_was_left(tmp_path: Path) -> None:
    place = tmp_path / "data"
    killed(lambda: staged_folder(place).__enter__())
    killed(lambda: stage_of(tmp_path / "database").mkdir())
    (other,) = (path for path in tmp_path.iterdir() if "database" in path.name)
    with staged_folder(place) as stage:
        assert sorted(tmp_path.iterdir()) == sorted([stage, other])
    assert sorted(tmp_path.iterdir()) == sorted([other, place])
    discard(place)
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize("name", ["x" * 255, "\u706b" * 85, os.fsdecode(b"\xff" * 255)])
def test_a_stage_has_room_for_every_name(tmp_path: Path, name: str) -> None:
    with staged_folder(tmp_path / name) as stage:
        assert len(os.fsencode(stage.name)) <= 255
    assert (tmp_path / name).is_dir()


def test_links_are_no_folders(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_bytes(bytes(100))
    (tmp_path / "inside").mkdir()
    killed(lambda: stage_of(tmp_path / "inside" / "x").symlink_to("../outside"))
    (link,) = stages(tmp_path / "inside")
    assert size_of(link) < 100
    assert remove_abandoned([link]) == [link]
    assert (tmp_path / "outside" / "kept").exists()
