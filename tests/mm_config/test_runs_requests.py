"""Requests beside a spec: stored whole, told from edited and damaged ones, part of what a run is made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.tiny import SPEC
from mm_config import spec_hash
from mm_config.cli.app import app
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import Run, attach, open_run
from mm_config.runs.inputs import read_inputs
from mm_config.runs.requests import stored_requests
from mm_config.runs.videos import requests_of
from mm_config.schema.errors import UserError
from mm_config.specs.requests import GenerationRequest
from mm_config.stored.files import to_payload

REQUESTS = (GenerationRequest(prompt="a cat", seed=3), GenerationRequest(prompt="猫", image="first.png"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    Path("first.png").write_bytes(b"a picture")
    return open_run(SPEC, RunOptions(tmp_path / "runs", requests=REQUESTS), inputs={})


def test_they_are_read_as_they_were_written(run: Run) -> None:
    assert stored_requests(run.path, run.record) == requests_of(attach(run.path)) == REQUESTS
    hashes = "".join(f"{spec_hash(one)}\n" for one in REQUESTS)
    assert run.record.requests_hash == hashlib.sha256(hashes.encode()).hexdigest()
    own = open_run(SPEC, RunOptions(run.path.parents[1]))
    assert stored_requests(own.path, own.record) is None
    assert requests_of(own) == SPEC.samples.requests


def test_a_list_of_runs_tells_them_from_those_of_the_spec(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    open_run(SPEC, RunOptions(run.path.parents[1]))
    assert app(["runs", "--runs-dir", str(run.path.parents[1])]) == 0
    kinds = sorted(line.split("  ")[2].strip() for line in capsys.readouterr().out.splitlines()[2:])
    assert kinds == ["infer", "infer (requests)"]


def test_requests_and_the_files_that_they_give_are_inputs(run: Run) -> None:
    inputs = read_inputs(run.path)
    assert inputs is not None
    assert {path: one.digest for path, one in inputs.items()} == {
        "requests.0": spec_hash(REQUESTS[0]),
        "requests.1": spec_hash(REQUESTS[1]),
        "requests.1.image": hashlib.sha256(b"a picture").hexdigest(),
    }
    Path("first.png").write_bytes(b"another picture")
    other = open_run(SPEC, RunOptions(run.path.parents[1], requests=REQUESTS), inputs={})
    assert other.record.requests_hash == run.record.requests_hash
    assert other.record.made_of != run.record.made_of
    Path("first.png").unlink()
    with pytest.raises(UserError, match=r"^requests\.1\.image: first\.png is no file that can be read"):
        open_run(SPEC, RunOptions(run.path.parents[1], requests=REQUESTS), inputs={})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no requests: "),
        ({"requests": 3}, "holds no requests: "),
        ({"requests": [{"v": 1}]}, "holds no requests: "),
        ({"requests": [to_payload(SPEC.samples)]}, "holds no requests but other specs"),
        ({"requests": [to_payload(REQUESTS[0])]}, "is not what the run was started with: it was edited"),
    ],
)
def test_what_was_damaged_or_edited_is_refused(run: Run, content: dict[str, Any], message: str) -> None:
    (run.path / "requests.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        stored_requests(run.path, run.record)
    assert str(caught.value).startswith(str(run.path / "requests.json"))
