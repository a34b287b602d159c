"""Videos whose runs are gone: what they were made of still stands in them, and is compared first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest

from mm_config.cli.app import app
from mm_config.cli.targets import find_run
from mm_config.content import Input
from mm_config.options import RunOptions
from mm_config.runs.folder import Run, open_run
from mm_config.runs.marks import comment_for
from mm_config.schema import UserError
from mm_config.specs import GenerationRequest, InferSpec
from mm_data import write_mp4

ASKED = GenerationRequest(prompt="a red circle")
FIRST, SECOND = "a" * 64, "b" * 64
Mm = Callable[..., tuple[int, str, str]]


@attrs.frozen
class Shown:
    """A video, and the run that made it."""

    path: Path
    run: Run


@pytest.fixture
def shown(tmp_path: Path, spec: InferSpec) -> Callable[[str, str], Shown]:
    """Makes a video of weights with a digest."""

    def make(name: str, weights: str) -> Shown:
        inputs = {"spec.high_noise": Input(digest=weights, kind="released-weights")}
        run = open_run(spec, RunOptions(tmp_path / "runs", requests=(ASKED,)), inputs=inputs)
        comment = comment_for(spec, ASKED, run.record)
        write_mp4(tmp_path / name, np.zeros((5, 32, 32, 3), dtype=np.uint8), fps=8, comment=comment)
        run.finish({})
        return Shown(tmp_path / name, run)

    return make


@pytest.fixture
def mm(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Mm:
    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = app([*map(str, words), "--runs-dir", str(tmp_path / "runs")])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def test_a_lost_run_is_not_taken_for_the_one_that_stands_in_for_it(
    shown: Callable[[str, str], Shown], mm: Mm, tmp_path: Path
) -> None:
    first, second = shown("a.mp4", FIRST), shown("b.mp4", SECOND)
    status, told, _ = mm("diff", first.path, second.path)
    assert status == 1 and "made_of differs: 1 input\n" in told
    shutil.rmtree(first.run.path)
    made = [str(one.run.record.made_of)[:12] for one in (first, second)]
    for words, whose in (((first, second), "first"), ((second, first), "second")):
        status, told, said = mm("diff", *(one.path for one in words))
        digits = " / ".join(made if whose == "first" else made[::-1])
        assert status == 1 and f"made_of differs: {digits}; the inputs of the {whose} are not here\n" in told
        assert f"taking {second.run.record.path}, which has the same spec " in said
        assert said.endswith(" and was not made of the same\n")
    status, told, _ = mm("diff", first.path, second.path, "--json")
    report = json.loads(told)
    assert not report["equal"] and report["unread"].startswith(" / ".join(made))
    with pytest.raises(UserError, match="can't be made again"):
        find_run(str(first.path), tmp_path / "runs", or_equal=True)


def test_a_run_that_was_made_of_the_same_stands_in_for_a_lost_one(
    shown: Callable[[str, str], Shown], mm: Mm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, equal, _ = shown("a.mp4", FIRST), shown("b.mp4", FIRST), shown("c.mp4", SECOND)
    shutil.rmtree(first.run.path)
    made = str(first.run.record.made_of)[:12]
    status, told, said = mm("diff", first.path, equal.path)
    assert status == 0 and "equal in every field" in told
    assert said.endswith(f"; taking {equal.run.record.path}, which was made of the same ({made})\n")
    assert mm("runs", "show", first.path)[2] == said
    capsys.readouterr()
    assert find_run(str(first.path), tmp_path / "runs", or_equal=True).path == equal.run.path
    assert capsys.readouterr().err == said
    with pytest.raises(UserError, match="was made of the same"):  # Its threads are another run's.
        find_run(str(first.path), tmp_path / "runs")
