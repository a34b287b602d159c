"""The scorer reads held-out clips after mp4 and after the autoencoder, as it reads generated videos."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch

from experiments import tiny_high
from mm_config.families.tiny import TINY
from mm_config.specs.datasets import ShapesSpec
from mm_data import Clip, prepare, to_frames, to_model_range
from mm_data.shapes import score
from mm_models import build_autoencoder
from tests.mm_data.streams import load_record


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    cache: Path = tmp_path_factory.mktemp("cache")
    trained_on = tiny_high.SPEC.data.dataset
    assert isinstance(trained_on, ShapesSpec)
    held_out = attrs.evolve(trained_on, seed=trained_on.seed + 1, clips_per_caption=4)
    dataset = prepare(held_out, cache_dir=cache)
    return [load_record(record, tiny_high.SPEC.data) for record in dataset.records]


def test_held_out_clips_are_read_right_after_the_autoencoder(clips):
    autoencoder = build_autoencoder(TINY.autoencoder)
    captions = [clip.caption for clip in clips]
    video = to_model_range(torch.stack([clip.frames for clip in clips]))
    shares = score(to_frames(autoencoder.decode(autoencoder.encode(video))), captions)
    assert min(shares.values()) >= 0.98, shares


def test_decoded_noise_is_near_chance(clips):
    autoencoder = build_autoencoder(TINY.autoencoder)
    video = to_model_range(torch.stack([clip.frames for clip in clips[:1]]))
    shape = autoencoder.encode(video).shape[1:]
    noise = torch.randn((32, *shape), generator=torch.Generator().manual_seed(0))
    shares = score(to_frames(autoencoder.decode(noise)), ShapesSpec().captions)
    assert shares["colour"] <= 0.25 and shares["shape"] <= 0.5 and shares["direction"] <= 0.25, shares
