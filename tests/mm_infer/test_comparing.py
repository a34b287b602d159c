"""`mm compare`: measures against other code, calibration by hand, and the command that people type."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import av
import numpy as np
import pytest
import torch
from torch import Tensor

import mm_config
from mm_config import replace, spec_hash
from mm_config.cli.app import app
from mm_config.options.run_options import RunOptions
from mm_config.planning import infer_work
from mm_config.specs import FeatureCacheSpec, GuidanceMode, InferSpec, ReleasedWeights
from mm_data import read_comment
from mm_infer import load
from mm_infer.comparing import Changes, psnr, relative_error, ssim, steps_to_skip
from mm_infer.pipeline import Pipeline, denoised_turns
from mm_infer.requests import Inputs
from mm_infer.watching import Watch

RED, BLUE = "a red circle moving right", "a blue square moving up"


@pytest.fixture
def exact(spec: InferSpec) -> InferSpec:
    """Six steps of each expert."""
    return replace(spec, {"sampler.steps": 12, "boundary": 0.93})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: InferSpec, release: Path) -> Path:
    """A folder with both specs and the release's location."""
    mm_config.dump(exact, tmp_path / "exact.json")
    cache = FeatureCacheSpec(threshold=0.5)
    mm_config.dump(replace(exact, "feature_cache", cache), tmp_path / "cached.json")
    (tmp_path / "locations.yaml").write_text(f"test/tiny: {release}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def patterns() -> tuple[Tensor, Tensor]:
    """Two videos of two frames of 20 x 24 pixels, by formulas."""
    t, y, x, c = np.meshgrid(*map(np.arange, (2, 20, 24, 3)), indexing="ij")
    one = 7 * x + 3 * y + 40 * t + 20 * c
    other = one + (x * y + 5 * t) % 17 - 8
    return torch.from_numpy((one % 256).astype(np.uint8)), torch.from_numpy((other % 256).astype(np.uint8))


def test_frames_are_as_far_apart_as_scikit_image_says():
    one, other = patterns()
    # scikit-image 0.26.0: structural_similarity of the luma with gaussian_weights=True, sigma=1.5,
    # use_sample_covariance=False and data_range=255; peak_signal_noise_ratio of all values.
    assert ssim(one, other) == pytest.approx(0.9197317348533494, abs=1e-9)
    assert psnr(one, other) == pytest.approx(20.931368221327553, abs=1e-9)
    assert (ssim(one, one), psnr(one, one)) == (pytest.approx(1.0), math.inf)


def test_relative_errors_are_norms_over_all_videos():
    one, other = [torch.tensor([3.0]), torch.tensor([4.0])], [torch.tensor([3.0]), torch.tensor([4.5])]
    assert relative_error(one, other) == pytest.approx(0.1)
    assert relative_error(one, one) == 0


@pytest.mark.parametrize("guidance", [GuidanceMode.BATCHED, GuidanceMode.SEQUENTIAL])
def test_a_steps_change_is_that_of_what_the_blocks_add(
    exact: InferSpec, options: RunOptions, guidance: GuidanceMode
):
    pipeline = load(replace(exact, "runtime.guidance", guidance), options)
    changes = Changes()
    requests = exact.samples.requests[:3]
    list(denoised_turns(pipeline, Inputs(requests[:2]), Watch(around=changes.around)))
    list(denoised_turns(pipeline, Inputs(requests[2:]), Watch(around=changes.around)))
    found, wanted = changes.of_steps(), _changes_by_hand(pipeline, Inputs(requests))
    assert found == pytest.approx(wanted, rel=1e-4)
    assert sorted(found) == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]


def _changes_by_hand(pipeline: Pipeline, inputs: Inputs) -> dict[int, float]:
    """One video after the other with guidance in two passes, by hooks on all blocks' first and last."""
    alone = replace(pipeline.spec, {"runtime.guidance": GuidanceMode.SEQUENTIAL, "runtime.batch_size": 1})
    added: list[Tensor] = []
    before: list[Tensor] = []
    hooks = []
    for network in pipeline.networks.values():
        blocks = list(network.get_submodule("blocks").children())
        hooks += [
            blocks[0].register_forward_pre_hook(lambda _, given: before.append(given[0].clone())),
            blocks[-1].register_forward_hook(lambda _, __, output: added.append(output - before[-1])),
        ]
    list(denoised_turns(attrs.evolve(pipeline, spec=alone), inputs))
    for hook in hooks:
        hook.remove()
    videos, steps = len(inputs.requests), pipeline.spec.sampler.steps
    of_VKB = torch.stack([one.flatten() for one in added]).view(videos, steps, 2, -1)
    apart = (of_VKB[:, 1:] - of_VKB[:, :-1]).norm(dim=-1) / of_VKB[:, :-1].norm(dim=-1)
    means = apart.mean(0).amax(-1).tolist()
    return {step: mean for step, mean in enumerate(means, 1) if step != 6}


@pytest.mark.parametrize(
    ("cache", "changes", "expected"),
    [
        # Two steps in a row come to 0.2, a third would come to 0.3.
        ({"threshold": 0.25, "max_skipped": 9}, dict.fromkeys(range(1, 12), 0.1), (2, 3, 5, 8, 9, 11)),
        ({"threshold": 0.25, "max_skipped": 1}, dict.fromkeys(range(1, 12), 0.1), (2, 4, 8, 10)),
        ({"threshold": 0.05}, dict.fromkeys(range(1, 12), 0.1), ()),
        ({"threshold": 9.0, "dense_share": 0.5}, dict.fromkeys(range(1, 12), 0.1), (3, 4, 9, 10)),
        ({"threshold": 9.0, "derivatives": 2}, dict.fromkeys(range(1, 12), 0.1), (3, 4, 9, 10)),
        ({"threshold": 9.0, "dense_share": 1.0}, dict.fromkeys(range(1, 12), 0.1), ()),
        # A step that changes much is computed, and the sum begins anew behind it.
        (
            {"threshold": 0.25, "max_skipped": 9},
            {2: 0.2, 3: 0.3, 4: 0.2, 5: 0.01, 8: 0.1, 9: 0.2},
            (2, 4, 5, 8),
        ),
    ],
)
def test_steps_are_skipped_while_their_changes_come_to_little(
    exact: InferSpec, cache: dict[str, float], changes: dict[int, float], expected: tuple[int, ...]
):
    spec = replace(exact, "feature_cache", replace(FeatureCacheSpec(), cache))
    assert steps_to_skip(spec, changes) == expected
    assert mm_config.problems(replace(spec, "feature_cache.skipped", expected)) == []


def compared(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert app(["compare", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_cache_is_calibrated_compared_and_generated_with(
    place: Path, exact: InferSpec, capsys: pytest.CaptureFixture[str]
):
    words = ("--prompt", RED, "--prompt", BLUE, "--calibrate", "ready.json", "--out", "both")
    found = compared(capsys, "exact.json", "cached.json", *words)
    ready = mm_config.load(place / "ready.json")
    skipped = ready.feature_cache.skipped
    changes = {one["step"]: one["change"] for one in found["calibration"]["changes"]}
    assert skipped and list(skipped) == found["calibration"]["skipped"]
    assert skipped == steps_to_skip(replace(ready, "feature_cache.skipped", ()), changes)
    assert [side["spec_hash"] for side in found["sides"]] == [spec_hash(exact), spec_hash(ready)]
    for side in found["sides"]:
        result = json.loads((Path(side["run_dir"]) / "result.json").read_text())
        assert result["spec_hash"] == side["spec_hash"] and len(result["videos"]) == 2
    errors = {one["step"]: one["relative_error"] for one in found["latents"]}
    assert all(errors[step] == 0 for step in range(skipped[0]))
    assert all(errors[step] > 0 for step in range(skipped[0], 12))
    assert [video["prompt"] for video in found["videos"]] == [RED, BLUE]
    assert all(video["psnr"] > 10 and video["ssim"] < 1 for video in found["videos"])
    assert [side["flops"] for side in found["sides"]] == [
        2 * infer_work(one).step_flops for one in (exact, ready)
    ]
    assert set(found["speed"]) == {"step", "load", "encode", "denoise", "decode"}
    assert len(found["side_by_side"]) == 2
    with av.open(found["side_by_side"][0]) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (128, 64)
    for side in found["sides"]:
        assert side["run_dir"] in read_comment(Path(found["side_by_side"][0]))
    assert app(["generate", "ready.json", "--prompt", RED, "--out", "again.mp4"]) == 0
    own = next((Path(found["sides"][1]["run_dir"]) / "samples").glob("a-red*.mp4"))
    assert _pixels(own) == _pixels(place / "again.mp4")


def _pixels(path: Path) -> bytes:
    with av.open(str(path)) as video:
        return b"".join(frame.to_ndarray().tobytes() for frame in video.decode(video=0))


def test_two_equal_specs_are_equal_and_what_is_asked_for_is_the_first_ones(
    place: Path, exact: InferSpec, capsys: pytest.CaptureFixture[str]
):
    found = compared(capsys, "exact.json", "exact.json")
    assert {one["relative_error"] for one in found["latents"]} == {0}
    assert [(one["psnr"], one["seed"]) for one in found["videos"]] == [(None, 5), (None, 6)] * 2
    assert app(["compare", "exact.json", "exact.json", "--prompt", RED, "--spec.steps", "3"]) == 0
    page = capsys.readouterr().out
    assert "their noise levels differ, so latents are compared after the last step alone" in page
    assert "B is faster" in page and "dB" in page


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("cached.json",),
            "cached.json: spec.feature_cache.skipped: is None: which steps skip the blocks is not known yet; "
            "`mm compare EXACT THIS --calibrate FILE` finds them, EXACT being the same spec without a cache",
        ),
        (
            ("exact.json", "--calibrate", "x.json"),
            "exact.json: has no spec.feature_cache whose steps could be found",
        ),
        (
            ("cached.json", "--calibrate", "x.json", "--spec.steps", "10"),
            "exact.json: differs from cached.json by more than its feature_cache: spec.sampler.steps",
        ),
        (
            ("exact.json", "--spec.width", "128", "--spec.fps", "16"),
            "exact.json: makes 17 frames of 128x64 at 16 per second of request 0, exact.json 17 frames of "
            "64x64 at 8 per second: they can't be compared",
        ),
        (
            ("exact.json", "--calibrate", "x.txt"),
            "--calibrate: expected the name of a file that ends in .json or .yaml, got 'x.txt'",
        ),
        (("exact.json", "--seed", "3"), "--seed: has no part without --prompt or --prompts; leave it out"),
        (("exact.json", "--out", "x.mp4"), "--out: several prompts need a folder, got the file name 'x.mp4'"),
        (
            ("exact.json", "--spec.stepz", "3"),
            "--spec.stepz: unknown flag; did you mean --spec.steps (--spec.sampler.steps) or --steps?",
        ),
        (
            ("exact.json", "--prompt", "red " * 40),
            f"exact.json: spec.text_encoder.max_tokens: '{'red ' * 15}...' has 40 words, 7 fit",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_made(
    words: tuple[str, ...], expected: str, place: Path, capsys: pytest.CaptureFixture[str]
):
    before = sorted(place.iterdir())
    assert app(["compare", "exact.json", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and expected in printed.err.splitlines()
    assert sorted(place.iterdir()) == before


def test_weights_that_only_one_has_are_missed_before_anything_is_made(
    place: Path, exact: InferSpec, capsys: pytest.CaptureFixture[str]
):
    other = replace(exact, "low_noise", ReleasedWeights(name="test/other"))
    mm_config.dump(other, place / "other.json")
    assert app(["compare", "exact.json", "other.json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("other.json: spec.low_noise: ")
    assert not (place / "runs").exists()
