"""The likely cause of a difference: data and weights by digests, then code, versions, device, threads."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mm_config.reproducing.causes import Cause, suspects
from mm_config.reproducing.difference import FRAMES, NUMBERS, TENSORS, Difference, changed_numbers, largest
from mm_config.runs.provenance_diff import OriginChange
from tests.mm_config.walking import WALKING

CHANGES = {
    Cause.DATA: ("data spec.data.dataset", "data requests.0.image", "data digest"),
    Cause.WEIGHTS: ("weights spec.high_noise", "weights spec.high_noise, data spec.data.dataset"),
    Cause.CODE: ("git main, commit", "git main, uncommitted changes (provenance-2.json)", "numerics"),
    Cause.VERSIONS: ("package torch", "python"),
    Cause.THREADS: ("threads", "intra_op_threads", "cpu_count"),
    Cause.DEVICE: ("devices", "ops", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "variable HCCL_DETERMINISTIC", "host"),
}


def differing(share: float | None, kind: str = NUMBERS, damaged: bool = False) -> Difference:
    return Difference("step 1", "loss", "1.0", "2.0", kind, share, damaged)


def causes(names: list[str], *differences: Difference) -> list[Cause]:
    return [one.cause for one in suspects([OriginChange(name, "a", "b") for name in names], differences)]


def test_each_change_of_the_origin_is_a_cause() -> None:
    for cause, names in CHANGES.items():
        for name in names:
            assert causes([name], differing(0.5)) == [cause], name
    assert causes([], differing(0.5)) == []
    assert causes(["threads"]) == [], "nothing differs"
    assert causes(["TORCHELASTIC_RUN_ID"], differing(0.5)) == []
    for files, found in (("notes.txt", []), ("new.py", [Cause.CODE]), ("a, b, c and 2 more", [Cause.CODE])):
        change = OriginChange("git main, untracked files", "none", files)
        assert [one.cause for one in suspects([change], [differing(0.5)])] == found


@pytest.mark.parametrize(
    ("difference", "order"),
    [
        (differing(0.5), [Cause.CODE, Cause.VERSIONS, Cause.DEVICE, Cause.THREADS]),
        (differing(1e-7), [Cause.THREADS, Cause.DEVICE, Cause.VERSIONS, Cause.CODE]),
        (differing(1 / 255, FRAMES), [Cause.THREADS, Cause.DEVICE, Cause.VERSIONS, Cause.CODE]),
        (differing(9 / 255, FRAMES), [Cause.CODE, Cause.VERSIONS, Cause.DEVICE, Cause.THREADS]),
        (differing(None), [Cause.CODE, Cause.VERSIONS, Cause.DEVICE, Cause.THREADS]),
    ],
)
def test_what_rounding_makes_is_put_down_to_what_changes_the_last_bits(
    difference: Difference, order: list[Cause]
) -> None:
    names = [names[0] for names in CHANGES.values()]
    assert causes(names, difference) == [Cause.DATA, Cause.WEIGHTS, *order]


def test_files_that_were_changed_since_are_a_cause_of_their_own() -> None:
    assert causes(["threads"], differing(None, damaged=True)) == [Cause.FILES, Cause.THREADS]
    assert causes(["threads"], differing(None, damaged=True), differing(0.5)) == [Cause.THREADS, Cause.FILES]


def test_the_largest_difference_of_each_kind_is_found() -> None:
    first, second = differing(0.25), differing(0.75)
    frames, unmeasured = differing(0.1, FRAMES), differing(None, TENSORS)
    assert largest((first, unmeasured, frames, second)) == {NUMBERS: second, FRAMES: frames}
    before = {"a": 1.0, "b": -2.0, "c": "none", "d": 0.0, "e": math.inf, "f": 4}
    after = {"a": 1.5, "b": 2.0, "c": 1.0, "d": -0.0, "e": 1.0, "f": 4}
    found = {one.value: one.share for one in changed_numbers("step 1", before, after)}
    assert found == {"a": 1 / 3, "b": 2.0, "c": None, "d": 0.0, "e": 0.0}


def test_a_change_of_the_code_is_named_as_the_cause(tmp_path: Path) -> None:
    """A package in a repository, whose loss an edited line changes."""
    metadata = tmp_path / "walking-1.0.dist-info"
    metadata.mkdir()
    (tmp_path / "walking.py").write_text(WALKING)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: walking\nVersion: 1.0\n")
    entry_points = "[mm.runners]\nwalk = walking:run\n[mm.specs]\nwalk = walking\n"
    (metadata / "entry_points.txt").write_text(entry_points)
    (tmp_path / "walk.py").write_text(
        "from mm_config import main\nfrom walking import WalkSpec\nmain(WalkSpec())\n"
    )
    (tmp_path / ".gitignore").write_text("runs\n__pycache__\n")
    git = ["git", "-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)

    def python(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    stored = python("walk.py")
    assert stored.returncode == 0, stored.stderr
    folder = Path(stored.stdout.splitlines()[-1]).parent
    (tmp_path / "walking.py").write_text(WALKING.replace("1 / step +", "1 / step + step / 8 +"))
    done = python("-m", "mm_config", "reproduce", str(folder))
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    likely = f"  likely      code: git {tmp_path.name}, uncommitted changes: none -> patch "
    assert any(line.startswith(likely) for line in lines), lines
    # Of 1/4 and 3/4, a half is two thirds of the larger.
    assert lines[2] == "step 1: loss 1.0 -> 1.125"
    assert "  largest     numbers 66.67%  step 4: loss 0.25 -> 0.75" in lines
