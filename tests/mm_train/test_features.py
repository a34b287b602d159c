"""Features made once: equal to encoding on the fly, reused, made again when files change; bad clips."""

import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
from mm_data import Dataset, ask, batch_indices
from mm_train.content import with_content
from mm_train.features import (
    Features,
    cached_features,
    feature_identity,
    features_folder,
    recorded_contents,
)
from mm_train.ranks import Ranks
from mm_train.sources import cached_source, encoding_source
from tests.mm_data.streams import load_record

ALONE = Ranks(rank=0, world_size=1, grouped=False)
CPU = torch.device("cpu")


def prepared(spec: TrainSpec, options: RunOptions) -> Dataset:
    return with_bytes(spec, mm_data.prepare(spec.data.dataset, cache_dir=options.cache_dir))


def with_bytes(spec: TrainSpec, dataset: Dataset) -> Dataset:
    """The dataset as a training knows it."""
    data = mm_data.dataset_input(spec.data.dataset, dataset, dataset.root.parent / "contents")
    return with_content(dataset, data)


@pytest.fixture
def own_clips(small: TrainSpec, options: RunOptions, tmp_path: Path) -> TrainSpec:
    """The spec over a copy of the rendered clips that a test may damage."""
    dataset = prepared(small, options)
    folder = tmp_path / "clips"
    shutil.copytree(dataset.root, folder)
    manifest = ManifestSpec(name=str(folder), path=str(folder))
    return replace(small, {"data.dataset": manifest, "schedule.steps": 10})


def damage(spec: TrainSpec, count: int) -> list[Path]:
    assert isinstance(spec.data.dataset, ManifestSpec)
    assert spec.data.dataset.path is not None
    clips = sorted(Path(spec.data.dataset.path).rglob("*.mp4"))[:count]
    for clip in clips:
        clip.write_bytes(b"no video")
    return clips


def test_features_of_rounded_products_are_kept_apart_from_exact_ones(
    small: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    dataset = prepared(small, options)
    for allowed in (False, True):
        spec = replace(small, "precision.allow_tf32", allowed)
        cached_features(spec, dataset, tmp_path, Locations(), CPU, ALONE)
    identities = [json.loads(file.read_text())["identity"] for file in tmp_path.rglob("features.json")]
    assert sorted("allow_tf32" in identity for identity in identities) == [False, True]


def test_another_numerics_makes_features_of_its_own(
    small: TrainSpec, options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = prepared(small, options)
    before = features_folder(feature_identity(small, dataset), tmp_path)
    monkeypatch.setattr("mm_train.features.NUMERICS", NUMERICS + 1)
    assert features_folder(feature_identity(small, dataset), tmp_path) != before


def test_cached_features_equal_those_encoded_on_the_fly(
    small: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    dataset = prepared(small, options)
    made = cached_features(small, dataset, tmp_path, Locations(), CPU, ALONE)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    read = cached_features(small, dataset, tmp_path, Locations(), CPU, ALONE)
    assert equal(read, made, dataset)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == written

    indices = (3, 0, 31)
    dropped = (False, True, False)
    source = cached_source(read, small.data, CPU)
    assert source.load is not None
    cached = source.collate(
        [source.load(ask(dataset.records[index], small.data, index)) for index in indices], dropped
    )
    clips = [load_record(dataset.records[index], small.data) for index in indices]
    encoded = encoding_source(small, Locations(), CPU).collate(clips, dropped)
    for looked_up, expected in zip(cached, encoded, strict=True):
        assert torch.allclose(looked_up, expected, atol=1e-6)
    assert cached[1][1].count_nonzero() == 0


def test_another_size_or_a_changed_file_gets_features_of_its_own(
    small: TrainSpec, own_clips: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    dataset = prepared(own_clips, options)
    cached_features(own_clips, dataset, tmp_path / "cache", Locations(), CPU, ALONE)
    smaller = replace(own_clips, {"data.height": 32, "data.width": 32})
    features = cached_features(smaller, dataset, tmp_path / "cache", Locations(), CPU, ALONE)
    assert features.latents_of(0).shape == (small.autoencoder.latent_channels, 5, 4, 4)
    damage(own_clips, 1)
    dataset = prepared(own_clips, options)
    features = cached_features(own_clips, dataset, tmp_path / "cache", Locations(), CPU, ALONE)
    assert [bad.index for bad in features.bad] == [0]
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 3


def test_other_weights_of_an_encoder_make_other_features(
    small: TrainSpec, options: RunOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, field = prepared(small, options), "spec.autoencoder.weights"
    own = RunOptions(runs_dir=tmp_path)
    for digest, made in (("a" * 64, False), ("a" * 64, False), ("b" * 64, True)):
        inputs = {field: Input(digest=digest, kind="released-weights", name="test/autoencoder")}
        cached_features(small, dataset, own.cache_dir, Locations(), CPU, ALONE, inputs)
        assert ("was made with other weights and made again" in capsys.readouterr().out) == made
        # Where the release is not here, the features tell what it was.
        assert recorded_contents(small, dataset, own) == inputs


def equal(first: Features, second: Features, dataset: Dataset) -> bool:
    captions = {"", *(record.caption for record in dataset.records)}
    pairs = [(first.text_of(caption), second.text_of(caption)) for caption in captions]
    pairs += [(first.latents_of(index), second.latents_of(index)) for index in range(len(dataset.records))]
    return all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("features.json", "cut"),
        ("features.json", "missing"),
        ("text-0000000.safetensors", "missing"),
        ("text-0000001.safetensors", "flipped bit"),
        ("latents-0000000.safetensors", "cut"),
        ("latents-0000003.safetensors", "flipped bit"),
        ("latents-0000002.safetensors", "another's"),
    ],
)
def test_a_damaged_cache_is_made_again(
    name: str,
    how: str,
    small: TrainSpec,
    options: RunOptions,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = prepared(small, options)
    expected = cached_features(small, dataset, tmp_path, Locations(), CPU, ALONE)
    [folder] = (tmp_path / "features").iterdir()
    before = digests(folder)
    content = bytearray((folder / name).read_bytes())
    content[-100] ^= 1
    if how == "another's":
        content = bytearray((folder / "latents-0000001.safetensors").read_bytes())
    (folder / name).unlink()
    if how != "missing":
        (folder / name).write_bytes(content[:100] if how == "cut" else content)
    assert equal(cached_features(small, dataset, tmp_path, Locations(), CPU, ALONE), expected, dataset)
    said = "".join(capsys.readouterr())
    assert said.count("is damaged and made again") == 1
    assert (str(folder) if name == "features.json" else str(folder / name)) in said
    assert digests(folder) == before
    assert list((tmp_path / "features").iterdir()) == [folder]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_start_reads_no_record_and_a_run_those_alone_that_it_draws(
    small: TrainSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(small, {"data.batch_size": 2, "schedule.steps": 2, "schedule.warmup_steps": 1})
    own = RunOptions(runs_dir=tmp_path)
    dataset = prepared(spec, own)
    losses = [json.loads(line)["loss"] for line in metrics(mm_train.train(spec, own).run_dir)]
    [folder] = (own.cache_dir / "features").iterdir()
    drawn = {
        index // 8
        for step in range(2)
        for index in batch_indices(dataset.order_key, spec.seed, step, 2, len(dataset.records))
    }
    others = {0, 1, 2, 3} - drawn
    assert drawn
    assert others

    # A start over files that aren't there neither fails nor makes them.
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        file.rename(tmp_path / file.name)
    features = cached_features(spec, dataset, own.cache_dir, Locations(), CPU, ALONE)
    assert "damaged" not in "".join(capsys.readouterr())
    assert list(folder.iterdir()) == [folder / "features.json"]
    for file in files:
        if file.name not in {f"latents-{number:07d}.safetensors" for number in others}:
            (tmp_path / file.name).rename(file)
    again = mm_train.train(spec, own)
    assert [json.loads(line)["loss"] for line in metrics(again.run_dir)] == losses
    assert "damaged" not in "".join(capsys.readouterr())
    features.latents_of(8 * others.pop())
    assert "damaged" in capsys.readouterr().err


def metrics(run_dir: Path) -> list[str]:
    return (run_dir / "metrics.jsonl").read_text().splitlines()


def test_a_damaged_file_whose_clip_is_gone_ends_the_run_and_names_it(
    own_clips: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    dataset = prepared(own_clips, options)
    features = cached_features(own_clips, dataset, tmp_path, Locations(), CPU, ALONE)
    for file in tmp_path.rglob("latents-*"):
        file.unlink()
    [damaged] = damage(own_clips, 1)
    with pytest.raises(UserError, match=rf"{damaged.name}: could be read when features were made; decode: "):
        features.latents_of(0)


def test_runs_that_make_a_cache_at_once_end_with_one(
    small: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    dataset = prepared(small, options)

    def make(_: int) -> Features:
        return cached_features(small, dataset, tmp_path, Locations(), CPU, ALONE)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(make, range(2))
    assert equal(first, second, dataset)
    assert len(list((tmp_path / "features").iterdir())) == 1


def test_a_caption_that_is_too_long_and_a_folder_that_can_not_be_written_leave_nothing_behind(
    own_clips: TrainSpec, tmp_path: Path
) -> None:
    assert isinstance(own_clips.data.dataset, ManifestSpec)
    manifest = Path(str(own_clips.data.dataset.path)) / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join([*lines[:-1], lines[-1].replace("a yellow", "a bright and warm yellow")]))
    dataset = with_bytes(own_clips, mm_data.prepare(own_clips.data.dataset, cache_dir=tmp_path))
    with pytest.raises(UserError, match=r"spec\.text_encoder\.max_tokens: 'a bright and warm yellow"):
        cached_features(own_clips, dataset, tmp_path, Locations(), CPU, ALONE)
    assert list((tmp_path / "features").iterdir()) == []
    with pytest.raises(UserError, match="the feature cache can't be written: Not a directory"):
        cached_features(own_clips, dataset, manifest, Locations(), CPU, ALONE)


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
    cache: Cache, own_clips: TrainSpec, options: RunOptions, losses_of: Callable[[Path], list[float]]
) -> None:
    damage(own_clips, 32)
    with pytest.raises(UserError, match=r"spec\.data\.max_bad_share: .* of 32 clips can't be read"):
        mm_train.train(replace(own_clips, "data.cache", cache), options)
    folder = max((options.runs_dir / own_clips.name).iterdir())
    assert not (folder / "metrics.jsonl").exists()
