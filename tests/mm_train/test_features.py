"""Features that a training keeps: equal to encoding on the fly, shared, and of no other encoder."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import mm_data
import mm_train
from mm_config import replace
from mm_config.content import NUMERICS, Input
from mm_config.options.locations import Locations
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.data import Cache
from mm_config.specs.datasets import ManifestSpec
from mm_config.specs.train import TrainSpec
from mm_train.features.encoding import Encoders
from mm_train.features.opening import encoder_contents
from mm_train.sources import source_of
from tests.mm_train.kept_features import (
    CPU,
    all_of,
    asks_of,
    clips_of,
    damage,
    equal,
    opened,
    prepared,
    with_own_clips,
)


@pytest.fixture
def own_clips(small: TrainSpec, options: RunOptions, tmp_path: Path) -> TrainSpec:
    return with_own_clips(small, options, tmp_path / "clips")


def test_training_from_the_cache_equals_training_from_raw_clips_bit_for_bit(
    small: TrainSpec, options: RunOptions, losses_of: Callable[[Path], list[float]]
) -> None:
    spec = replace(small, {"schedule.steps": 3, "schedule.warmup_steps": 1})
    raw, made, read = (
        losses_of(mm_train.train(replace(spec, "data.cache", cache), options).run_dir)
        for cache in (Cache.NONE, Cache.LATENTS, Cache.LATENTS)
    )
    assert len(set(raw)) == 3
    assert made == raw
    assert read == raw


def test_kept_features_equal_those_encoded_on_the_fly(
    small: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    dataset = prepared(small, options)
    made = opened(small, dataset, tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    read = opened(small, dataset, tmp_path)
    assert equal(all_of(read, small, dataset), all_of(made, small, dataset))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == written

    asked = [asks_of(small, dataset)[index] for index in (3, 0, 31)]
    dropped = (False, True, False)
    source = source_of(small, Locations(), CPU, read)
    assert source.load is not None
    kept = source.collate([source.load(one) for one in asked], dropped)
    clips = [mm_data.load_clip(one, small.data) for one in asked]
    raw = source_of(small, Locations(), CPU).collate(clips, dropped)
    assert equal((kept.latents_BCTHW, kept.text_BLD), (raw.latents_BCTHW, raw.text_BLD))
    assert kept.text_BLD[1].count_nonzero() == 0


@pytest.mark.parametrize("what", ["allow_tf32", "numerics", "weights", "autoencoder"])
def test_another_encoder_misses(
    what: str, small: TrainSpec, options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, inputs = prepared(small, options), {}
    opened(small, dataset, tmp_path)
    other = small
    if what == "allow_tf32":
        other = replace(small, "precision.allow_tf32", True)
    elif what == "numerics":
        monkeypatch.setattr("mm_train.features.kinds.NUMERICS", NUMERICS + 1)
    elif what == "weights":
        inputs = {"spec.autoencoder.weights": Input(digest="a" * 64, kind="released-weights")}
    else:
        other = replace(small, {"autoencoder.latent_channels": 8, "model.in_channels": 8})
    encoded = count_clips(monkeypatch)
    opened(other, dataset, tmp_path, inputs)
    # Released weights count for specs that name some; the DCT of these tests has none.
    assert len(encoded) == (0 if what == "weights" else 32)


def count_clips(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one with each clip that is encoded."""
    encoded, of_clip = [], Encoders.of_clip

    def counted(*args: Any) -> Any:
        encoded.append(None)
        return of_clip(*args)

    monkeypatch.setattr(Encoders, "of_clip", counted)
    return encoded


def test_a_changed_clip_and_another_size_alone_are_encoded_anew(
    small: TrainSpec,
    own_clips: TrainSpec,
    options: RunOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened(own_clips, prepared(own_clips, options), tmp_path)
    encoded = count_clips(monkeypatch)
    smaller = replace(own_clips, {"data.height": 32, "data.width": 32})
    dataset = prepared(own_clips, options)
    latents = all_of(opened(smaller, dataset, tmp_path), smaller, dataset)[0]
    assert latents.shape == (small.autoencoder.latent_channels, 5, 4, 4)
    assert len(encoded) == 32

    first, second, third = clips_of(own_clips)[:3]
    first.write_bytes(b"no video")
    content = second.read_bytes()
    second.write_bytes(third.read_bytes())
    dataset = prepared(own_clips, options)
    features = opened(own_clips, dataset, tmp_path)
    assert [bad.index for bad in features.bad] == [0]
    # A clip that has the bytes of another has its features, whatever its name is.
    assert len(encoded) == 32
    asked = asks_of(own_clips, dataset)
    assert torch.equal(*(features.latents_of(features.kept(one)) for one in asked[1:3]))
    second.write_bytes(content + b"\0")
    opened(own_clips, prepared(own_clips, options), tmp_path)
    assert len(encoded) == 33


def test_clips_of_one_name_in_two_folders_have_features_of_their_own(
    small: TrainSpec, own_clips: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    # MindSpeed-MM names features by the clip's last name, so one of the two would be lost.
    root = tmp_path / "twice"
    lines = []
    for folder, clip, caption in zip("ab", clips_of(own_clips), ("red", "blue"), strict=False):
        (root / folder).mkdir(parents=True)
        (root / folder / "clip.mp4").write_bytes(clip.read_bytes())
        lines.append(json.dumps({"path": f"{folder}/clip.mp4", "caption": caption}) + "\n")
    (root / "manifest.jsonl").write_text("".join(lines))
    spec = replace(small, {"data.dataset": ManifestSpec(name="twice", path=str(root)), "data.batch_size": 2})
    dataset = prepared(spec, options)
    first, second, *_ = all_of(opened(spec, dataset, tmp_path), spec, dataset)
    theirs = [mm_data.load_clip(asked, spec.data).frames for asked in asks_of(spec, dataset)]
    assert not torch.equal(*theirs)
    raw = source_of(spec, Locations(), CPU).collate(
        [mm_data.load_clip(asked, spec.data) for asked in asks_of(spec, dataset)], (False, False)
    )
    assert equal((first, second), raw.latents_BCTHW)


def test_other_weights_of_an_encoder_make_other_features_and_what_was_made_tells_them(
    small: TrainSpec, options: RunOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, field = prepared(small, options), "spec.autoencoder.weights"
    for digest, made in (("a" * 64, False), ("a" * 64, False), ("b" * 64, True)):
        inputs = {field: Input(digest=digest, kind="released-weights", name="test/autoencoder")}
        opened(small, dataset, tmp_path, inputs)
        assert ("was made with other weights and made again" in capsys.readouterr().out) == made
        # Where the release is not here, the features tell what it was.
        assert encoder_contents(small, dataset, RunOptions(runs_dir=tmp_path), {}) == inputs


def test_runs_that_make_a_cache_at_once_end_with_one(
    small: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    dataset = prepared(small, options)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: opened(small, dataset, tmp_path), range(2))
    assert equal(all_of(first, small, dataset), all_of(second, small, dataset))
    again = opened(small, dataset, tmp_path)
    assert equal(all_of(again, small, dataset), all_of(second, small, dataset))


def test_a_caption_that_is_too_long_comes_before_all_clips_and_a_cache_that_can_not_be_written_is_told(
    small: TrainSpec, own_clips: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    manifest = next(tmp_path.rglob("manifest.jsonl"))
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join([*lines[:-1], lines[-1].replace("a yellow", "a bright and warm yellow")]))
    dataset = prepared(own_clips, options)
    with pytest.raises(UserError, match=r"spec\.text_encoder\.max_tokens: 'a bright and warm yellow"):
        opened(own_clips, dataset, tmp_path)
    assert not list(tmp_path.rglob("latents-*"))
    with pytest.raises(UserError, match="features can't be written: Not a directory"):
        opened(small, prepared(small, options), manifest)


@pytest.mark.parametrize("cache", list(Cache))
def test_clips_that_can_not_be_read_are_listed_and_the_run_goes_on(
    cache: Cache, own_clips: TrainSpec, options: RunOptions
) -> None:
    damaged = damage(own_clips, 3)
    result = mm_train.train(replace(own_clips, "data.cache", cache), options)
    lines = (result.run_dir / "quarantine.jsonl").read_text().splitlines()
    assert {json.loads(line)["path"] for line in lines} == {str(path.resolve()) for path in damaged}
    assert result.quarantined == 3
    assert json.loads(result.result_path.read_text())["quarantined"] == 3
    assert result.steps == 10


@pytest.mark.parametrize("cache", list(Cache))
def test_a_run_over_unreadable_clips_alone_ends_with_the_reason(
    cache: Cache, own_clips: TrainSpec, options: RunOptions
) -> None:
    damage(own_clips, 32)
    with pytest.raises(UserError, match=r"spec\.data\.max_bad_share: .* of 32 clips can't be read"):
        mm_train.train(replace(own_clips, "data.cache", cache), options)
    folder = max((options.runs_dir / own_clips.name).iterdir())
    assert not (folder / "metrics.jsonl").exists()
