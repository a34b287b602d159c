"""A video is made again with those that shared its batch, however batches were cut."""

from pathlib import Path

import pytest

import mm_config
from mm_config import RunOptions, replace
from mm_config.cli.app import app
from mm_config.specs import GenerationRequest, InferSpec
from mm_config.stored import read_json
from mm_infer.runner import make

FRAMES = (9, 5, 5, 5, 9)
"""With batches of two: one, two, one, one."""


def test_a_batch_is_what_was_made_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: InferSpec, release: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"height": 32, "width": 32, "sampler.steps": 2, "runtime.batch_size": 2}
    mm_config.dump(replace(spec, changes), "spec.json")
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    requests = tuple(
        GenerationRequest(prompt=f"a red circle {way}", num_frames=count)
        for way, count in zip("abcde", FRAMES, strict=True)
    )
    make(replace(spec, changes), RunOptions(requests=requests))
    (result,) = map(read_json, (tmp_path / "runs").glob("*/*/result.json"))
    assert [one["batch"] for one in result["videos"]] == [0, 1, 1, 3, 4]
    assert app(["reproduce", result["videos"][2]["path"]]) == 0
    (again,) = map(read_json, (tmp_path / "runs" / "reproductions").glob("*/*/requests.json"))
    assert [one["spec"]["prompt"][-1] for one in again["requests"]] == ["b", "c"]
