"""Trainings on given frames: from kept features, in micro-batches, over ranks, resumed; what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

import mm_train
from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.schema.errors import UserError
from mm_config.specs import (
    Cache,
    ClipImageEncoderSpec,
    Conditioning,
    LatentMode,
    PrecomputedSpec,
    RandomWeights,
    ReleasedWeights,
    TrainSpec,
    WanAutoencoderSpec,
)
from mm_data import Clip
from mm_models import build_autoencoder
from mm_models.seeding import generator
from mm_train.features.encoding import Encoders
from mm_train.features.kinds import CONDITION, IMAGE, LATENTS, TEXT, encoders_of, made_with
from mm_train.precomputing import precompute_features
from tests.mm_train.kept_features import CPU, asks_of, opened, prepared
from tests.tiny_clip import write_clip

Losses = Callable[[Path], list[float]]
Metrics = Callable[[Path], list[dict[str, Any]]]
BESIDE = {"model.in_channels": 9 + 4 + 9}
BRANCH = {
    "model.image_dim": 16,
    "image_encoder": ClipImageEncoderSpec(
        weights=ReleasedWeights(name="clip"),
        image_dim=16,
        image_size=28,
        patch_size=14,
        num_layers=2,
        num_heads=2,
        d_ff=24,
    ),
}
CASES: dict[str, dict[str, Any]] = {
    "first": {"model.conditioning": Conditioning.FIRST_FRAME, **BESIDE},
    "both": {
        "model.conditioning": Conditioning.FIRST_AND_LAST_FRAME,
        "model.image_positions": 10,
        **BESIDE,
        **BRANCH,
    },
    "clean": {"model.conditioning": Conditioning.CLEAN_FIRST_FRAME, "data.frame_dropout": 0.5},
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Location:
    """Where a CLIP with random weights lies."""
    torch.manual_seed(0)
    write_clip(folder := tmp_path_factory.mktemp("clip"), layers=2)
    return Location("clip", folder, "the test")


@pytest.fixture
def here(options: RunOptions, clip: Location) -> RunOptions:
    return attrs.evolve(options, locations=Locations((clip,)))


def brief(small: TrainSpec, name: str) -> TrainSpec:
    steps = {"schedule.steps": 3, "schedule.warmup_steps": 1, "data.cache": Cache.NONE}
    return replace(small, {**steps, **CASES[name]})


@pytest.mark.parametrize("name", ["both", "clean"])
def test_training_from_kept_features_equals_training_from_clips_without_encoders(
    name: str, small: TrainSpec, here: RunOptions, clip: Location, losses_of: Losses, tmp_path: Path
) -> None:
    spec = brief(small, name)
    raw = losses_of(mm_train.train(spec, here).run_dir)
    kept = losses_of(mm_train.train(replace(spec, "data.cache", Cache.LATENTS), here).run_dir)
    assert kept == pytest.approx(raw, rel=1e-6)
    said = precompute_features(spec, here, tmp_path)
    kinds = "condition, image, latents, text" if name == "both" else "condition, latents, text"
    assert said[0] == f"{kinds} of 32 clips"
    before = replace(spec, "data.precomputed", PrecomputedSpec(name=name, empty_caption=True))
    only = attrs.evolve(here, locations=Locations((Location(name, tmp_path, "the test"),)))
    assert losses_of(mm_train.train(before, only).run_dir) == kept


def test_a_step_is_the_same_however_a_batch_is_split_and_goes_on_where_it_stopped(
    small: TrainSpec, options: RunOptions, metrics_of: Metrics
) -> None:
    spec = brief(small, "clean")
    whole = metrics_of(mm_train.train(spec, options).run_dir)
    with pytest.raises(StoppedEarly):
        mm_train.train(spec, attrs.evolve(options, stop_after=2))
    parts = metrics_of(mm_train.train(spec, attrs.evolve(options, resume="latest")).run_dir)
    split = metrics_of(mm_train.train(replace(spec, "runtime.micro_batch_size", 1), options).run_dir)
    assert [(line["loss"], line["grad_norm"]) for line in parts] == [
        (line["loss"], line["grad_norm"]) for line in whole
    ]
    for one, other in zip(split, whole, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("name", [pytest.param("both", marks=pytest.mark.slow), "clean"])
def test_two_ranks_train_on_given_frames_as_one_does(
    name: str, small: TrainSpec, here: RunOptions, losses_of: Losses, run_ranks: Callable[..., None]
) -> None:
    spec = brief(small, name)
    alone = losses_of(mm_train.train(spec, here).run_dir)
    run_ranks(_train_on_ranks, spec, here, losses_of, alone)


def _train_on_ranks(
    rank: int, spec: TrainSpec, options: RunOptions, losses_of: Losses, alone: list[float]
) -> None:
    result = mm_train.train(spec, options)
    if rank == 0:
        assert losses_of(result.run_dir) == pytest.approx(alone, rel=1e-5)


def test_what_is_kept_of_given_frames_is_named_by_what_is_given(small: TrainSpec) -> None:
    text, first, both, clean = (small, *(brief(small, name) for name in CASES))
    assert [encoders_of(one).keys() for one in (text, first, both)] == [
        {LATENTS, TEXT},
        {LATENTS, TEXT, CONDITION},
        {LATENTS, TEXT, CONDITION, IMAGE},
    ]
    for kind in (LATENTS, TEXT):
        assert all(made_with(one, kind, None) == made_with(text, kind, None) for one in (first, both, clean))
    assert len({str(made_with(one, CONDITION, None)) for one in (first, both, clean)}) == 3
    one_image = replace(both, {"model.conditioning": Conditioning.FIRST_FRAME, "model.image_positions": 5})
    assert made_with(one_image, IMAGE, None) != made_with(both, IMAGE, None)


def test_the_kept_condition_is_the_mode_where_latents_are_samples(small: TrainSpec) -> None:
    autoencoder = WanAutoencoderSpec(
        weights=RandomWeights(seed=1), latent_channels=9, base_dim=8, dim_mult=(1, 1, 1, 1), num_res_blocks=1
    )
    sampled = attrs.evolve(autoencoder, latent_mode=LatentMode.SAMPLE)
    frames = torch.randint(256, (5, 16, 16, 3), dtype=torch.uint8, generator=generator("frames"))
    still = torch.zeros(1, 3, 5, 16, 16)
    still[0, :, 0] = frames[0].permute(2, 0, 1) / 127.5 - 1
    expected = build_autoencoder(autoencoder).encode(still)[0]
    encoders = Encoders(replace(brief(small, "first"), "autoencoder", sampled), Locations(), CPU)
    row = encoders.of_clip(Clip(frames, "noise"), [CONDITION])[CONDITION]
    torch.testing.assert_close(row["latents"], expected, rtol=1e-5, atol=1e-6)


def test_features_that_hold_nothing_of_given_frames_are_refused(
    small: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    text = replace(small, {"data.cache": Cache.NONE})
    precompute_features(text, options, tmp_path)
    first = replace(
        brief(small, "first"), "data.precomputed", PrecomputedSpec(name="text", empty_caption=True)
    )
    where = attrs.evolve(options, locations=Locations((Location("text", tmp_path, "the test"),)))
    with pytest.raises(UserError) as refused:
        mm_train.train(first, where)
    assert str(refused.value) == (
        f"spec.data.precomputed.latents: is True, but {tmp_path} holds no condition"
    )


def test_a_damaged_condition_is_made_again(
    small: TrainSpec, options: RunOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(brief(small, "first"), "data.cache", Cache.LATENTS)
    dataset = prepared(spec, options)
    features = opened(spec, dataset, tmp_path)
    before = [features.given_of(features.kept(asked))[0] for asked in asks_of(spec, dataset)]
    copies = [torch.tensor(one.numpy()) for one in before if one is not None]
    for shard in tmp_path.rglob("condition-*/*.safetensors"):
        shard.write_bytes(shard.read_bytes()[:-8] + b"xxxxxxxx")
    again = opened(spec, dataset, tmp_path)
    for asked, condition in zip(asks_of(spec, dataset), copies, strict=True):
        after, image = again.given_of(again.kept(asked))
        assert after is not None and torch.equal(after, condition) and image is None
    assert "is damaged and made again" in capsys.readouterr().err


def test_missing_weights_of_encoders_are_all_told_before_anything_is_loaded(
    small: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoencoder = WanAutoencoderSpec(
        weights=ReleasedWeights(name="vae"), latent_channels=9, base_dim=8, dim_mult=(1, 1, 1, 1)
    )
    spec = replace(brief(small, "both"), "autoencoder", autoencoder)
    monkeypatch.setattr(Encoders, "__init__", lambda *_: pytest.fail("encoders are built"))
    with pytest.raises(UserError) as missing:
        mm_train.train(spec, options)
    paths = [problem.path for problem in missing.value.problems]
    assert paths == ["spec.autoencoder.weights", "spec.image_encoder.weights"]
    assert not (options.runs_dir / spec.name).exists()
