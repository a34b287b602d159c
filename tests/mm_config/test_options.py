"""Options of a run from Python: what they take, and how those who take them say what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mm_config
from experiments import tiny_high
from mm_config import RunOptions
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import Threads
from mm_config.schema.errors import UserError
from mm_config.specs.requests import GenerationRequest


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"runs_dir": 3}, "runs_dir: expected Path, got int"),
        ({"resume": 3}, "resume: expected str or None, got int"),
        ({"if_needed": 1}, "if_needed: expected bool, got int"),
        ({"locations": {"a": "b"}}, "locations: expected Locations, got dict"),
        ({"stop_after": "x"}, "stop_after: expected int or None, got str"),
        ({"stop_after": True}, "stop_after: expected int or None, got bool"),
        ({"requests": ["x"]}, "requests: expected tuple of GenerationRequest or None, got list"),
        ({"repeats": 3}, "repeats: expected Path or None, got int"),
        ({"threads": 3}, "threads: expected Threads or None, got int"),
        ({"argv": ("mm", 3)}, "argv: expected tuple of str, got tuple"),
    ],
)
def test_an_option_of_another_type_says_what_was_expected(given: dict[str, Any], line: str) -> None:
    with pytest.raises(TypeError) as raised:
        RunOptions(**given)
    assert str(raised.value) == line


def test_what_options_are_made_of_says_so_too() -> None:
    wrong: Any = "runs"
    make: Any = RunOptions
    with pytest.raises(TypeError, match="entries: expected tuple of Location, got str"):
        Locations(wrong)
    with pytest.raises(TypeError, match="path: expected Path, got str"):
        Location("weights", wrong, "me")
    with pytest.raises(TypeError, match="openmp: expected int, got str"):
        Threads(wrong, None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'device'"):
        make(device="gpu")
    with pytest.raises(ValueError, match="'openmp' must be >= 1"):
        Threads(0, None)


def test_paths_may_be_text_and_the_run_to_resume_a_path(tmp_path: Path) -> None:
    request = GenerationRequest(prompt="a circle")
    given = RunOptions(runs_dir=str(tmp_path), repeats="one/run", resume=tmp_path, requests=(request,))
    assert given == RunOptions(tmp_path, repeats=Path("one/run"), resume=str(tmp_path), requests=(request,))
    assert given.contents_dir == tmp_path / ".cache" / "contents"


def test_locations_are_read_where_commands_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "locations.yaml").write_text("weights: here\n")
    monkeypatch.chdir(tmp_path)
    (found,) = RunOptions().locations.entries
    assert (found.name, found.path) == ("weights", tmp_path / "here")
    assert RunOptions(locations=Locations()).locations.entries == ()
    (tmp_path / "locations.yaml").write_text("- weights\n")
    with pytest.raises(UserError, match=r"locations.yaml: expected lines `NAME: PATH`"):
        RunOptions()


def test_an_option_is_called_as_it_was_given() -> None:
    assert RunOptions().name_of("accept_content") == "options.accept_content"
    assert RunOptions(argv=("tiny.py",)).name_of("accept_content") == "--accept-content"


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: mm_config.spec_hash({}), "spec: expected a spec, got dict"),
        (lambda: mm_config.exact_hash(None), "spec: expected a spec, got NoneType"),
        (lambda: mm_config.problems("spec.json"), "spec: expected a spec, got str"),
        (lambda: mm_config.dump(3, "spec.json"), "spec: expected a spec, got int"),
        (lambda: mm_config.replace(3, "seed", 1), "spec: expected a spec, got int"),
        (lambda: mm_config.replace(tiny_high.SPEC, {3: 1}), "path: expected str, got int"),  # type: ignore[dict-item]
    ],
)
def test_what_takes_a_spec_says_so(call: Any, line: str) -> None:
    with pytest.raises(TypeError) as raised:
        call()
    assert str(raised.value) == line


RUNS_A_NUMBER = "from mm_config import main\n\nmain(3)\n"


def script(tmp_path: Path, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "script.py"
    file.write_text(text)
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, str(file)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
    )


def test_main_of_no_spec_is_one_line(tmp_path: Path) -> None:
    done = script(tmp_path, RUNS_A_NUMBER)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "spec: expected RootSpec, got int\n")


@pytest.mark.parametrize(
    ("variable", "value", "least"), [("WORLD_SIZE", "abc", 1), ("WORLD_SIZE", "0", 1), ("RANK", "-1", 0)]
)
def test_numbers_of_ranks_that_are_none_are_one_line(
    variable: str, value: str, least: int, tmp_path: Path
) -> None:
    text = f"import sys\nsys.path.insert(0, {str(Path.cwd())!r})\nfrom experiments.tiny_high import SPEC\n"
    done = script(tmp_path, f"{text}from mm_config import main\n\nmain(SPEC)\n", **{variable: value})
    line = f"{variable}: expected a whole number of at least {least}, got {value!r}; torchrun sets it\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
