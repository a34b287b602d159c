"""A generation run: its folder, its result, its score."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import attrs
import pytest
from PIL import Image

from mm_config import exact_hash, replace, spec_hash
from mm_config.options.run_options import RunOptions
from mm_config.running import runners
from mm_config.runs.index import open_index
from mm_config.runs.record import RunStatus
from mm_config.schema.errors import UserError
from mm_config.specs.datasets import ShapesScorerSpec
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.parallel import AttentionImpl
from mm_config.stored.mp4 import frames_digest
from mm_data import read_comment


def result_of(spec: InferSpec, options: RunOptions) -> dict:
    outcome = runners.run(spec, options)
    assert outcome.result_path == outcome.run_dir / "result.json" and outcome.run_dir.is_absolute()
    return json.loads(outcome.result_path.read_text())


def test_a_run_leaves_videos_sheet_and_result(
    spec: InferSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
):
    result = result_of(spec, options)
    assert (result["kind"], result["spec_hash"], result["exact_hash"]) == (
        "infer",
        spec_hash(spec),
        exact_hash(spec),
    )
    assert result["score"] is None
    assert [(video["prompt"], video["seed"]) for video in result["videos"]] == [
        (request.prompt, request.seed) for request in spec.samples.requests
    ]
    for video in result["videos"]:
        path = Path(video["path"])
        assert path.is_absolute() and path.parent.name == "samples"
        assert json.loads(read_comment(path))["spec_hash"] == spec_hash(spec)
    assert Image.open(result["contact_sheet"]).size[0] > 300
    assert set(result["timings"]) == {"weights", "hash", "load", "generate", "encode", "denoise", "decode"}
    taken = result["timings"]
    assert taken["generate"] >= taken["encode"] + taken["denoise"] + taken["decode"] > 0
    assert result["seconds"] >= taken["weights"] + taken["hash"] + taken["load"] + taken["generate"]
    assert 0 < result["peak_gib"] < 4
    assert set(result["experts"]) == {"high_noise", "low_noise"}
    (record,) = open_index(options.runs_dir).find_finished(spec_hash(spec))
    assert record.kind == "infer"
    origin = json.loads((options.runs_dir / record.path / "provenance.json").read_text("utf-8"))
    assert origin["ops"]["attention"] == "sdpa"
    printed = capsys.readouterr().out
    assert "cpu with attention sdpa, rms_norm" in printed
    for shown in (result["contact_sheet"], spec_hash(spec)[:12], "mm generate", "peak memory", "step 12/12"):
        assert shown in printed


def test_attention_that_the_device_has_not_is_refused(spec: InferSpec, options: RunOptions):
    changed = replace(
        spec, {"runtime.device": "auto", "runtime.attention": AttentionImpl.FLASH_3, "dtype": Dtype.BFLOAT16}
    )
    with pytest.raises(UserError, match=r"^spec\.runtime\.attention: is flash_3, which is not available on "):
        result_of(changed, options)


def test_equal_runs_make_equal_frames(spec: InferSpec, options: RunOptions):
    first, second = result_of(spec, options), result_of(spec, options)
    for one, other in zip(first["videos"], second["videos"], strict=True):
        assert one["path"] != other["path"]
        assert one["frames"] == other["frames"] == frames_digest(Path(other["path"]))
        assert one["sha256"] == sha256(Path(one["path"]).read_bytes()).hexdigest() != other["sha256"]


@pytest.mark.parametrize("awake", [False, True])
def test_random_experts_score_near_chance(
    awake: bool, random_spec: InferSpec, spec: InferSpec, options: RunOptions
):
    weights = {"high_noise": spec.high_noise, "low_noise": spec.low_noise} if awake else {}
    prompts = random_spec.samples.prompts[::3]
    scored = replace(random_spec, {**weights, "samples.prompts": prompts})
    outcome = runners.run(scored, options)
    result = json.loads(outcome.result_path.read_text())
    assert len(result["videos"]) == 11
    chance = {"colour": 1 / 4, "shape": 1 / 2, "direction": 1 / 4}
    assert set(result["score"]) == set(chance)
    for measured, share in result["score"].items():
        assert 0 <= share <= chance[measured] + 0.1
    measurements = json.loads((outcome.run_dir / "measurements.json").read_text())["videos"]
    assert [(one["prompt"], one["seed"]) for one in measurements] == [
        (request.prompt, request.seed) for request in scored.samples.requests
    ]


def test_prompts_that_no_scorer_understands_are_refused_before_any_work(spec: InferSpec, options: RunOptions):
    prompts = ("a red circle moving right", "a cat", "two cats")
    strange = replace(spec, {"samples.prompts": prompts, "samples.scorer": ShapesScorerSpec()})
    with pytest.raises(UserError) as caught:
        runners.run(strange, options)
    assert [problem.path for problem in caught.value.problems] == ["spec.samples.prompts"] * 2
    assert "'a cat'" in str(caught.value) and "'two cats'" in str(caught.value)
    assert open_index(options.runs_dir).list() == ()


def test_all_that_is_wrong_with_a_run_is_said_at_once(spec: InferSpec, options: RunOptions):
    wrong = {"samples.prompts": ("a cat",), "samples.scorer": ShapesScorerSpec(), "sampler.shift": 1e6}
    with pytest.raises(UserError) as caught:
        runners.run(replace(spec, wrong), options)
    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["spec.sampler.shift", "spec.samples.prompts"]


def test_nothing_to_make_is_a_mistake(spec: InferSpec, options: RunOptions):
    with pytest.raises(UserError, match=r"spec\.samples\.prompts: is empty"):
        runners.run(replace(spec, "samples.prompts", ()), options)


def test_a_run_that_breaks_is_recorded_as_failed(spec: InferSpec, options: RunOptions):
    breaking = replace(spec, "sampler.guidance_low_noise", 1e39)
    with pytest.raises(UserError, match="not finite"):
        runners.run(breaking, options)
    (record,) = open_index(options.runs_dir).list()
    assert record.status is RunStatus.FAILED
    assert "not finite" in (record.reason or "")


def test_a_generation_is_not_resumed(spec: InferSpec, options: RunOptions):
    finished = runners.run(spec, options)
    resumed = attrs.evolve(options, resume=str(finished.run_dir))
    with pytest.raises(UserError, match=r"options\.resume: a generation starts anew"):
        runners.run(spec, resumed)
