"""Kept features of Wan's autoencoder, whose latents may be a sample, and of image encoders."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

import mm_data
import mm_train
from mm_config import replace
from mm_config.content import Input
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.data import Cache, DataSpec
from mm_config.specs.encoders import LatentMode, WanAutoencoderSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights
from mm_data import Asked, Clip
from mm_models import build_autoencoder
from mm_train.features import encoding
from mm_train.features.encoding import Encoders
from mm_train.features.kinds import IMAGE, LATENTS, made_with, require_equal
from tests.mm_train.kept_features import CPU, asks_of, opened, prepared
from tests.mm_train.test_features import count_clips

Losses = Callable[[Path], list[float]]


@pytest.fixture
def wan(small: TrainSpec) -> TrainSpec:
    autoencoder = WanAutoencoderSpec(
        weights=RandomWeights(seed=1), latent_channels=9, base_dim=8, dim_mult=(1, 1, 1, 1), num_res_blocks=1
    )
    data = {"data.num_frames": 5, "data.height": 32, "data.width": 32}
    return replace(small, {"autoencoder": autoencoder, **data})


def test_a_sample_and_the_mode_of_latents_are_had_from_one_cache_as_the_autoencoder_gives_them(
    wan: TrainSpec, options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = prepared(wan, options)
    dataset = attrs.evolve(dataset, records=dataset.records[:2])
    encoded = count_clips(monkeypatch)
    latents = {}
    for mode in (LatentMode.MODE, LatentMode.SAMPLE):
        spec = replace(wan, "autoencoder.latent_mode", mode)
        features = opened(spec, dataset, tmp_path)
        autoencoder = build_autoencoder(spec.autoencoder, CPU)
        for asked in asks_of(spec, dataset):
            video = mm_data.to_model_range(mm_data.load_clip(asked, spec.data).frames[None])
            with torch.no_grad():
                (expected,) = autoencoder.encode(video)
            latents[mode] = features.latents_of(features.kept(asked))
            assert torch.equal(latents[mode], expected)
    assert len(encoded) == 2
    assert not torch.equal(*latents.values())


def test_training_on_kept_samples_of_latents_equals_training_on_clips(
    wan: TrainSpec, options: RunOptions, losses_of: Losses
) -> None:
    changes = {
        "autoencoder.latent_mode": LatentMode.SAMPLE,
        "data.num_frames": 1,
        "schedule.steps": 2,
        "schedule.warmup_steps": 1,
    }
    raw, kept = (
        losses_of(mm_train.train(replace(wan, {**changes, "data.cache": cache}), options).run_dir)
        for cache in (Cache.NONE, Cache.LATENTS)
    )
    assert kept == raw


def test_weights_count_by_what_they_are_and_not_by_their_name(wan: TrainSpec) -> None:
    weights, others = (Input(digest=digit * 64, kind="released-weights") for digit in "ab")
    named = replace(wan, "autoencoder.weights", ReleasedWeights(name="wan"))
    other = replace(wan, "autoencoder.weights", ReleasedWeights(name="a-copy", revision="2"))
    made = made_with(named, LATENTS, weights)
    assert made_with(other, LATENTS, weights) == made
    assert made_with(named, LATENTS, others) != made
    assert made_with(replace(wan, "autoencoder.weights.seed", 2), LATENTS, None) != made_with(
        wan, LATENTS, None
    )
    with pytest.raises(UserError, match=r"spec\.autoencoder\.weights: is 'bb.*were made with 'aa"):
        require_equal(made, made_with(named, LATENTS, others), LATENTS, "features")
    # Where the weights are not here, nothing is held against them.
    require_equal(made, made_with(named, LATENTS, None), LATENTS, "features")


def test_encoders_are_gone_once_all_is_encoded_and_few_clips_wait_for_them(
    small: TrainSpec, options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[weakref.ref[Any]] = []
    waiting, most = 0, 0

    def building(kind: str, build: Any) -> Any:
        def noted(*args: Any) -> Any:
            assert all(one() is None for one in built), "two encoders are there at once"
            encoder = build(*args)
            built.append(weakref.ref(encoder))
            return encoder

        return noted

    def loading(asked: Asked, data: DataSpec) -> Clip:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        return mm_data.load_clip(asked, data)

    def encoding_one(*args: Any) -> Any:
        nonlocal waiting
        waiting -= 1
        return of_clip(*args)

    for kind, build in list(encoding._BUILDERS.items()):
        monkeypatch.setitem(encoding._BUILDERS, kind, building(kind, build))
    of_clip = Encoders.of_clip
    monkeypatch.setattr(Encoders, "of_clip", encoding_one)
    monkeypatch.setattr(encoding, "load_clip", loading)
    spec = replace(small, "data.workers", 3)
    opened(spec, prepared(spec, options), tmp_path)
    assert [one() for one in built] == [None, None]
    assert 3 <= most <= 4


def test_an_image_encoder_is_given_the_first_frame_and_its_features_are_kept_beside_the_latents(
    small: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Means:
        """Features that are the mean colour, for which no weights are needed."""

        def encode(self, frames_BCHW: torch.Tensor) -> torch.Tensor:
            return frames_BCHW.mean((2, 3))[:, None]

    monkeypatch.setitem(encoding._BUILDERS, IMAGE, lambda *_: Means())
    frames = torch.zeros(17, 64, 64, 3, dtype=torch.uint8)
    frames[0] = 255
    given = replace(small, {"model.conditioning": Conditioning.FIRST_FRAME, "model.in_channels": 22})
    rows = Encoders(given, options.locations, CPU).of_clip(Clip(frames, "white"), [LATENTS, IMAGE])
    assert rows.keys() == {LATENTS, IMAGE}
    assert rows[IMAGE]["features"].tolist() == [[1.0, 1.0, 1.0]]
