"""Kept features of clips in several shapes, and of clips whose frames are drawn: a stated number of each."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import torch

import mm_data
import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.data import Cache, CaptionChoice, CaptionSpec
from mm_config.specs.train import TrainSpec
from mm_models import build_autoencoder
from tests.mm_train.kept_features import CPU, asks_of, opened, prepared

Losses = Callable[[Path], list[float]]


def test_a_mixture_in_buckets_trains_from_kept_features_as_from_raw_clips(
    mixed: TrainSpec, options: RunOptions, losses_of: Losses
) -> None:
    spec = replace(mixed, {"schedule.steps": 4, "schedule.warmup_steps": 1})
    raw, kept = (
        losses_of(mm_train.train(replace(spec, "data.cache", cache), options).run_dir)
        for cache in (Cache.NONE, Cache.LATENTS)
    )
    assert kept == raw


def test_each_draw_has_one_of_the_stated_variants_and_all_of_them_come_equally_often(
    small: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    spec = replace(small, {"data.flip_share": 0.5, "data.variants": 3})
    dataset = prepared(spec, options)
    features = opened(spec, dataset, tmp_path)
    assert len(list(tmp_path.rglob("latents-*/*.safetensors"))) == 3 * 32 // 8
    [clip, *_] = asks_of(spec, dataset)
    drawn = [features.kept(attrs.evolve(clip, draw=f"0/{epoch}/0")) for epoch in range(3000)]
    counts = Counter(one.draw for one in drawn)
    # Of 3,000 draws among 3, the standard deviation of a count is 26.
    assert len(counts) == 3
    assert all(abs(count - 1000) < 130 for count in counts.values())

    # What is kept is the clip as it is or mirrored, encoded: nothing else can come of a flip.
    autoencoder = build_autoencoder(spec.autoencoder, CPU)
    plain = mm_data.load_clip(clip, replace(spec, "data.flip_share", 0.0).data).frames[None]
    both = [autoencoder.encode(mm_data.to_model_range(one))[0] for one in (plain, plain.flip(-2))]
    seen = Counter(
        next(place for place, one in enumerate(both) if torch.equal(one, features.latents_of(kept)))
        for asked in asks_of(spec, dataset)[:1]
        for kept in {one.draw: one for one in drawn}.values()
    )
    assert sum(seen.values()) == 3


def test_what_is_drawn_is_refused_where_one_variant_would_be_kept(
    small: TrainSpec, options: RunOptions
) -> None:
    with pytest.raises(UserError, match=r"spec\.data\.flip_share: is 0\.5, but .* set data\.variants"):
        mm_train.train(replace(small, "data.flip_share", 0.5), options)


def test_all_captions_that_can_be_drawn_are_kept_once(
    small: TrainSpec, options: RunOptions, tmp_path: Path, losses_of: Losses
) -> None:
    captions = CaptionSpec(choice=CaptionChoice.RANDOM, templates=("{caption}", "here {caption}"))
    spec = replace(small, {"data.captions": captions, "schedule.steps": 3, "schedule.warmup_steps": 1})
    raw, kept = (
        losses_of(mm_train.train(replace(spec, "data.cache", cache), options).run_dir)
        for cache in (Cache.NONE, Cache.LATENTS)
    )
    assert kept == raw
