"""What a resumed run makes of metrics.jsonl, whatever a crash or a person left there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mm_config.runs.logged import rewind

FIRST, SECOND, THIRD = (f'{{"step": {step}, "loss": 0.5}}\n'.encode() for step in (1, 2, 3))
WHOLE = FIRST + SECOND + THIRD


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


@pytest.mark.parametrize("torn", [b"", b'{"step": 3, "lo', b"\0\0\0"], ids=["whole", "torn", "NUL"])
def test_later_steps_and_what_was_being_written_are_dropped_without_a_word(file: Path, torn: bytes) -> None:
    file.write_bytes(WHOLE + torn)
    assert rewind(file, 2) == []
    assert file.read_bytes() == FIRST + SECOND
    assert list(file.parent.iterdir()) == [file]


DAMAGES = {
    "garbage": (b"garbage\n" + SECOND, SECOND, "1 of 2 steps, the first is step 1"),
    "NUL in a line": (b"\0\0\0\n" + SECOND, SECOND, "1 of 2 steps, the first is step 1"),
    "NUL to the end": (FIRST + bytes(4096), FIRST, "1 of 2 steps, the first is step 2"),
    "half a line": (FIRST + SECOND[:9], FIRST, "1 of 2 steps, the first is step 2"),
    "a line cut in the middle": (FIRST[:9] + SECOND, b"", "2 of 2 steps, the first is step 1"),
    "no UTF-8": (b"\xff\xfe\n" + WHOLE, FIRST + SECOND, None),
    "another kind of JSON": (b"[1]\n" + FIRST + SECOND, FIRST + SECOND, None),
    "a step in words": (b'{"step": "1"}\n' + FIRST + SECOND, FIRST + SECOND, None),
    "no number": (b'{"step": true}\n' + FIRST + SECOND, FIRST + SECOND, None),
    "nested beyond reason": (b"[" * 100_000 + b"\n" + FIRST + SECOND, FIRST + SECOND, None),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_kept_and_what_is_lost_is_said(file: Path, name: str) -> None:
    content, kept, lost = DAMAGES[name]
    file.write_bytes(content)
    said = [f"{file} is damaged; as it was it is kept as metrics.jsonl.damaged"]
    assert rewind(file, 2) == said + ([f"{file} has lost {lost}"] if lost else [])
    assert file.read_bytes() == kept
    assert file.with_name("metrics.jsonl.damaged").read_bytes() == content


@pytest.mark.parametrize("left", [b"", FIRST + THIRD, None], ids=["emptied", "a line short", "deleted"])
def test_lines_that_are_gone_are_counted(file: Path, left: bytes | None) -> None:
    if left is not None:
        file.write_bytes(left)
    lost = "3 of 3 steps, the first is step 1" if not left else "1 of 3 steps, the first is step 2"
    assert rewind(file, 3) == [f"{file} has lost {lost}"]
    assert left is None or file.read_bytes() == left
    assert rewind(file.with_name("none"), 0) == []


@pytest.mark.parametrize("before", [1, None])
def test_steps_of_the_training_before_are_not_lost(file: Path, before: int | None) -> None:
    assert rewind(file, 1, before) == []
    file.write_bytes(SECOND + THIRD)
    assert rewind(file, 3, before) == []
    assert rewind(file, 4, before) == [f"{file} has lost 1 of 3 steps, the first is step 4"]


@pytest.mark.parametrize("kind", ["folder", "link to nothing"])
def test_what_is_no_file_gives_way(file: Path, kind: str) -> None:
    file.mkdir() if kind == "folder" else file.symlink_to("nowhere")
    is_none, has_lost = rewind(file, 1)
    assert is_none == f"{file} is no file; what is there is kept as metrics.jsonl.damaged"
    assert has_lost == f"{file} has lost 1 of 1 steps, the first is step 1"
    assert [path.name for path in file.parent.iterdir()] == ["metrics.jsonl.damaged"]


def test_a_pipe_or_a_file_beyond_all_size_is_set_aside_unread(file: Path) -> None:
    os.mkfifo(file)
    assert rewind(file, 1) == [
        f"{file} is no file; what is there is kept as metrics.jsonl.damaged",
        f"{file} has lost 1 of 1 steps, the first is step 1",
    ]
    with file.open("wb") as opened:
        opened.truncate(2**40)
    said, lost = rewind(file, 1)
    assert said.endswith("more than 1,073,741,824 bytes; it is kept as metrics.jsonl.damaged-2")
    assert lost == f"{file} has lost 1 of 1 steps, the first is step 1"
