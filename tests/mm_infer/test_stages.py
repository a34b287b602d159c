"""Stages after decoding: Lanczos against its formula, what the written file has, registration."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import av
import numpy as np
import pytest
import torch
from torch import Tensor

import mm_infer
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.planning.plan import plan
from mm_config.schema import UserError
from mm_config.schema import spec as declared
from mm_config.specs import GenerationRequest, InferSpec, LanczosUpscaleSpec, StageSpec
from mm_infer.runner import make
from mm_infer.stages import finished
from mm_models.registered import register
from tests.live_bytes import LiveBytes

REQUEST = GenerationRequest(prompt="a red circle moving up", seed=3)


def weights_of(size: int, factor: int) -> np.ndarray:
    """Row i: what each of `size` pixels counts in pixel i of `factor` times as many; sinc(x) sinc(x / 3)."""
    rows = np.zeros((size * factor, size))
    for out in range(size * factor):
        centre = (out + 0.5) / factor
        for pixel in range(size):
            x = pixel + 0.5 - centre
            if abs(x) < 3:
                rows[out, pixel] = np.sinc(x) * np.sinc(x / 3)
    return rows / rows.sum(1, keepdims=True)


@pytest.mark.parametrize("factor", [2, 3])
def test_lanczos_is_its_formula_and_takes_videos_in_parts(spec: InferSpec, factor: int) -> None:
    video = torch.rand(3, 5, 9, 14, generator=torch.Generator().manual_seed(1)) * 2 - 1
    asked = replace(spec, "after_decode", (LanczosUpscaleSpec(factor=factor),))
    made = torch.cat([*finished(asked, [video[None, :, :1], video[None, :, 1:]], "float")])
    unit = (video.double().numpy() + 1) / 2
    expected = np.einsum("ih,cthw,jw->tijc", weights_of(9, factor), unit, weights_of(14, factor))
    assert made.shape == (5, 9 * factor, 14 * factor, 3) and made.dtype == torch.float32
    assert np.abs(made.numpy() - expected.clip(0, 1)).max() < 1e-5
    assert (expected < 0).any() and (expected > 1).any()
    cut = torch.cat([*finished(asked, [video[None]])])
    assert torch.equal(cut, torch.from_numpy((made.numpy() * np.float32(255)).astype(np.uint8)))


def test_the_file_and_the_pipeline_have_what_the_stages_make(
    spec: InferSpec, options: RunOptions, tmp_path: Path
) -> None:
    plain = mm_infer.generate(spec, [REQUEST], options=options)[0].frames
    asked = replace(spec, "after_decode", (LanczosUpscaleSpec(), LanczosUpscaleSpec()))
    (video,) = mm_infer.generate(asked, [REQUEST], options=options)
    frames, height, width, _ = plain.shape
    assert video.frames.shape == (frames, 4 * height, 4 * width, 3)
    file = tmp_path / "large.mp4"
    made = make(asked, attrs.evolve(options, requests=(REQUEST,)), [file])
    with av.open(str(file)) as opened:
        stream = opened.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (4 * width, 4 * height, spec.fps)
        assert sum(1 for _ in opened.decode(stream)) == frames
    (again,) = json.loads(made.result_path.read_text())["videos"]
    assert again["path"] == str(file)


@declared("test-doubled-rate")
class DoubledRateSpec(StageSpec):
    """Shows each frame twice at twice the rate; holds nothing back."""

    def size_after(self, num_frames: int, height: int, width: int, fps: int) -> tuple[int, int, int, int]:
        return 2 * num_frames, height, width, 2 * fps


def doubled(_: DoubledRateSpec):
    def stage(parts: Iterable[Tensor]) -> Iterator[Tensor]:
        for part in parts:
            yield part.repeat_interleave(2, 0)

    return stage


def test_a_stage_of_ones_own_joins_by_registration_and_says_its_rate(
    spec: InferSpec, options: RunOptions, tmp_path: Path
) -> None:
    asked = replace(spec, "after_decode", (DoubledRateSpec(),))
    with pytest.raises(UserError, match=r"after_decode.0: no stage after decoding is installed"):
        mm_infer.load(asked, options=options)
    register("mm.stages", "test-doubled-rate", doubled)
    file = tmp_path / "twice.mp4"
    make(asked, attrs.evolve(options, requests=(REQUEST,)), [file])
    with av.open(str(file)) as opened:
        stream = opened.streams.video[0]
        seconds = spec.num_frames / spec.fps
        assert stream.average_rate == 2 * spec.fps
        assert math.isclose(sum(1 for _ in opened.decode(stream)) / (2 * spec.fps), seconds)


@pytest.mark.parametrize("factor", [2, 4])
def test_stages_after_decoding_take_what_is_planned(spec: InferSpec, factor: int) -> None:
    """Within 10 %, beside the decoded frames, which are counted anyway."""
    once = replace(spec, {"height": 128, "width": 128})
    staged = replace(once, "after_decode", (LanczosUpscaleSpec(factor=factor),))
    held, before = (plan(one).memory.phases["decoding"]["activations"] for one in (staged, once))
    decoded = torch.zeros(1, 3, spec.num_frames, 128, 128)
    with LiveBytes(decoded) as live:
        for _ in finished(staged, [decoded]):
            pass
    frames = 4 * 3 * spec.num_frames * 128 * 128
    assert live.peak - frames == pytest.approx(held - before, rel=0.1)
