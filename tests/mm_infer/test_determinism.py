"""Generation that only deterministic kernels may carry out."""

from __future__ import annotations

from pathlib import Path

import torch

import mm_infer
from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs.infer import InferSpec

PROMPTS = ["a red circle moving right", "a blue square moving up"]


def test_generation_is_deterministic_where_that_is_asked_for(spec: InferSpec, release: Path) -> None:
    places = RunOptions(locations=Locations((Location("test/tiny", release, "the test"),)))
    asked = replace(spec, "runtime.deterministic", True)
    pipeline = mm_infer.load(asked, options=places)
    seen: list[bool] = []
    made = pipeline(PROMPTS, on_step=lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    assert seen
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()
    again, without = pipeline(PROMPTS), mm_infer.load(spec, options=places)(PROMPTS)
    for video, second, usual in zip(made, again, without, strict=True):
        assert torch.equal(video.frames, second.frames)
        assert torch.equal(video.frames, usual.frames)
