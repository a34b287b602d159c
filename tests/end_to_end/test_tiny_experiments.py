"""The small experiments whole, held to their published goals: given frames, an adapter, a clean first frame.

Each is meant to take six minutes on two quiet cores; it prints what it took.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from experiments import tiny, tiny_i2v, tiny_i2v_high
from mm_config import replace
from mm_config.families.tiny import TINY
from mm_config.specs import COLOURS, DIRECTIONS, SHAPES
from mm_data import to_frames, to_model_range
from mm_data.shapes import render
from mm_models import build_autoencoder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def ran(experiment: str, runs: Path, *arguments: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result of an experiment, run with all that it needs, and what was measured on each video."""
    file, started = ROOT / "experiments" / f"{experiment}.py", time.perf_counter()
    command = [sys.executable, file, "--runs-dir", runs, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    path = Path(done.stdout.splitlines()[-1])
    result = json.loads(path.read_text())
    print(experiment, result["score"], f"{time.perf_counter() - started:.0f} s")
    return result, json.loads((path.parent / "measurements.json").read_text())["videos"]


def shares(videos: Sequence[dict[str, Any]]) -> tuple[float, float, float]:
    """How many of a hundred videos show the colour, the shape and the direction that was asked for."""
    right = [
        [video["colour"] == colour, video["shape"] == shape, video["direction"] == direction]
        for video in videos
        for _, colour, shape, _, direction in [video["asked_for"].split()]
    ]
    colour, shape, direction = 100 * np.mean(right, axis=0)
    return float(colour), float(shape), float(direction)


def require(got: Sequence[float], least: Sequence[float]) -> None:
    assert np.greater_equal(got, least).all(), (got, least)


def first_frame(path: str) -> np.ndarray:
    with av.open(path) as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24")


def swapped(videos: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Videos of prompts that ask for another direction than that of the clip whose frame was given."""
    frames = [Path(image).stem for image in tiny_i2v.SPEC.samples.images]
    return [
        video
        for video, frame in zip(videos, frames, strict=True)
        if frame.rpartition("_")[2] != video["asked_for"].rpartition(" ")[2]
    ]


def test_given_frames_are_those_of_clips_that_nobody_trains_on(update: bool) -> None:
    held_out = replace(tiny_i2v_high.DATASET, "seed", 1)
    assert tiny_i2v_high.DATASET.seed == 0
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    frames = {
        f"{colour}_{shape}_{direction}": render(held_out, f"a {colour} {shape} moving {direction}", 0)[0]
        for at, (colour, shape) in enumerate(kinds)
        for direction in DIRECTIONS[at % 2 :: 2]
    }
    if update:
        for name, frame in frames.items():
            Image.fromarray(frame).save(ROOT / "experiments" / "tiny_frames" / f"{name}.png", optimize=True)
    assert [frame.stem for frame in tiny_i2v.FRAMES] == sorted(frames)
    for frame in tiny_i2v.FRAMES:
        np.testing.assert_array_equal(np.asarray(Image.open(frame)), frames[frame.stem])
    samples = tiny_i2v.SPEC.samples
    assert len(samples.requests) == 64
    for image, prompt, wanted in zip(samples.images, samples.prompts, samples.wanted, strict=True):
        colour, shape, _ = Path(image).stem.split("_")
        assert wanted == f"a {colour} {shape} {prompt}"
    videos = [{"asked_for": wanted} for wanted in samples.asked_for]
    assert len(swapped(videos)) == 48


@pytest.mark.demo
def test_a_given_shape_moves_as_the_caption_says(runs: Path) -> None:
    result, videos = ran("tiny_i2v", runs)
    autoencoder, away = build_autoencoder(TINY.autoencoder), []
    for video, image in zip(result["videos"], tiny_i2v.SPEC.samples.images, strict=True):
        given = to_model_range(torch.from_numpy(np.array(Image.open(image)))[None, None])
        round_trip = to_frames(autoencoder.decode(autoencoder.encode(given)))[0, 0].numpy()
        away.append(np.abs(first_frame(video["path"]).astype(float) - round_trip).mean())
    followed = shares(swapped(videos))[2]
    print(f"swapped {followed:.0f}, first frame {np.mean(away):.2f} of 255 away, at most {max(away):.2f}")
    require((*shares(videos), followed), (98, 95, 95, 95))
    assert max(away) <= 4


@pytest.mark.demo
def test_an_adapter_teaches_a_fifth_colour(runs: Path) -> None:
    before, old = ran("tiny", runs)
    new = ran("tiny_lora", runs)[1]
    samples = tiny.SPEC.samples
    prompts, seeds = samples.prompts, map(str, samples.seeds)
    beside = ran("tiny_lora", runs, "--spec.samples.prompts", *prompts, "--spec.samples.seeds", *seeds)[1]
    again = ran("tiny", runs)[0]
    require(shares(new), (95, 90, 95))
    require(shares(beside), [share - 5 for share in shares(old)])
    assert [video["frames"] for video in again["videos"]] == [video["frames"] for video in before["videos"]]


@pytest.mark.demo
def test_one_network_makes_videos_from_text_and_from_clean_frames(runs: Path) -> None:
    from_text, from_frames = ran("tiny_ti2v_text", runs)[1], ran("tiny_ti2v", runs)[1]
    followed = shares(swapped(from_frames))[2]
    print(f"swapped {followed:.0f}")
    require(shares(from_text), (98, 90, 98))
    require((*shares(from_frames), followed), (98, 93, 98, 95))
