"""`mm data precompute`, and trainings from what it wrote: pinned by digest, without encoders."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from PIL import Image

import mm_train
from mm_config import dump, replace
from mm_config.cli.app import app
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.data import Cache, ClipStart, PrecomputedSpec
from mm_config.specs.datasets import FolderSpec, IndexSpec
from mm_config.specs.train import TrainSpec
from mm_train.features.encoding import Encoders
from mm_train.features.precomputed import read_precomputed
from mm_train.precomputing import precompute_features
from tests.mm_train.kept_features import clips_of, with_own_clips
from tests.mm_train.test_features import count_clips

Losses = Callable[[Path], list[float]]


@pytest.fixture
def spec(small: TrainSpec) -> TrainSpec:
    changes = {"schedule.steps": 3, "schedule.warmup_steps": 1, "data.cache": Cache.NONE}
    return replace(small, changes)


def at(options: RunOptions, folder: Path) -> RunOptions:
    """Where the features of a test lie, by its name: all runs of these tests know of one another."""
    return attrs.evolve(options, locations=Locations((Location(folder.parent.name, folder, "test"),)))


def from_features(spec: TrainSpec, folder: Path) -> TrainSpec:
    before = PrecomputedSpec(name=folder.parent.name, empty_caption=True)
    return replace(spec, "data.precomputed", before)


def test_the_command_prints_the_line_of_a_spec_that_trains_without_encoders_as_from_raw_clips(
    spec: TrainSpec,
    options: RunOptions,
    tmp_path: Path,
    losses_of: Losses,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = losses_of(mm_train.train(spec, options).run_dir)
    dump(spec, tmp_path / "spec.json")
    folder = tmp_path / "features"
    words = ["data", "precompute", str(tmp_path / "spec.json"), "--out", str(folder)]
    assert app([*words, "--runs-dir", str(options.runs_dir)]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("precomputed="))
    before = eval(line.removeprefix("precomputed="), {"PrecomputedSpec": PrecomputedSpec})
    assert before == PrecomputedSpec(name="features", empty_caption=True, digest=before.digest)
    before = attrs.evolve(before, name=tmp_path.name)

    def refuse(*_: object) -> None:
        raise AssertionError("an encoder is built")

    monkeypatch.setattr("mm_train.sources.build_autoencoder", refuse)
    monkeypatch.setattr("mm_train.sources.build_text_encoder", refuse)
    result = mm_train.train(replace(spec, "data.precomputed", before), at(options, folder))
    assert losses_of(result.run_dir) == raw
    inputs = json.loads((result.run_dir / "inputs.json").read_text())["inputs"]
    known = inputs["spec.data.precomputed"]
    assert (known["digest"], known["kind"], known["pinned"]) == (before.digest, "precomputed", True)


def test_what_is_there_is_not_made_again_and_the_digest_knows_no_shards(
    spec: TrainSpec, options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precompute_features(spec, options, tmp_path / "features")
    digest = read_precomputed(tmp_path / "features").digest
    encoded = count_clips(monkeypatch)
    precompute_features(spec, options, tmp_path / "features")
    assert encoded == []
    # The same clips in shards of another size.
    monkeypatch.setattr("mm_train.features.making.ROWS_PER_SHARD", 5)
    precompute_features(spec, options, tmp_path / "others")
    assert len(encoded) == 32
    assert len(list((tmp_path / "others").glob("latents-*/*.safetensors"))) == 7
    assert read_precomputed(tmp_path / "others").digest == digest


def test_two_ranks_share_the_clips_and_make_what_one_makes(
    spec: TrainSpec, options: RunOptions, tmp_path: Path, run_ranks: Callable[..., None]
) -> None:
    precompute_features(spec, options, tmp_path / "alone")
    run_ranks(_on_ranks, spec, options, tmp_path)
    assert read_precomputed(tmp_path / "shared").digest == read_precomputed(tmp_path / "alone").digest
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in range(2)] == ["16", "16"]


def _on_ranks(rank: int, spec: TrainSpec, options: RunOptions, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        encoded = count_clips(patched)
        precompute_features(spec, options, folder / "shared")
    (folder / f"rank-{rank}").write_text(str(len(encoded)))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"data.precomputed.digest": "0" * 64},
            r"spec\.data\.precomputed\.digest: is 0000.*, but the content",
        ),
        (
            {"autoencoder.latent_channels": 8, "model.in_channels": 8, "model.out_channels": 8},
            r"spec\.autoencoder\.latent_channels: is 8, but the latents in .* were made with 9",
        ),
        (
            {"data.height": 32, "data.width": 32},
            r"spec\.data\.precomputed: 32 clips or captions have no features in .*\.mp4",
        ),
        ({"text_encoder.ngrams": 1}, r"spec\.text_encoder\.ngrams: is 1, but the text in .* with 2"),
    ],
)
def test_features_of_another_encoder_size_or_digest_are_refused(
    change: dict[str, object], problem: str, spec: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    folder = tmp_path / "features"
    precompute_features(spec, options, folder)
    with pytest.raises(UserError, match=problem):
        mm_train.train(replace(from_features(spec, folder), change), at(options, folder))
    assert not list(options.runs_dir.glob(f"{spec.name}/*/metrics.jsonl"))


def test_a_damaged_feature_ends_the_training_and_a_damaged_head_its_start(
    spec: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    folder = tmp_path / "features"
    precompute_features(spec, options, folder)
    for file in folder.glob("latents-*/*.safetensors"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"\.safetensors: is damaged: its digest is another; .*precompute"):
        mm_train.train(from_features(spec, folder), at(options, folder))
    (folder / "features.json").write_text("{")
    with pytest.raises(UserError, match=r"features: holds no whole features\.json"):
        mm_train.train(from_features(spec, folder), at(options, folder))


def test_clips_that_could_not_be_read_and_clips_that_came_later(
    spec: TrainSpec, options: RunOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, folder = with_own_clips(spec, options, tmp_path / "clips"), tmp_path / "features"
    own = replace(own, "schedule.steps", 3)
    first, second = clips_of(own)[:2]
    first.write_bytes(b"no video")
    assert "1 of them can't be read" in precompute_features(own, options, folder)[0]
    result = mm_train.train(from_features(own, folder), at(options, folder))
    assert result.quarantined == 1
    second.write_bytes(second.read_bytes() + b"\0")
    options = attrs.evolve(options, accept_content=True)
    with pytest.raises(UserError, match=rf"1 clip or caption has no features in .*{re.escape(second.name)}"):
        mm_train.train(from_features(own, folder), at(options, folder))
    precompute_features(own, options, folder)
    assert mm_train.train(from_features(own, folder), at(options, folder)).steps == 3


@pytest.mark.parametrize(
    ("out", "kept"), [(None, "data.cache = latents keeps one encoding"), ("features", "latents are fixed")]
)
def test_what_is_drawn_anew_each_time_is_not_computed_ahead_once(
    spec: TrainSpec, options: RunOptions, tmp_path: Path, out: str | None, kept: str
) -> None:
    drawn = replace(spec, {"data.start": ClipStart.RANDOM, "data.flip_share": 0.5})
    with pytest.raises(UserError, match=kept) as caught:
        precompute_features(drawn, options, None if out is None else tmp_path / out)
    assert [one.path for one in caught.value.problems] == ["spec.data.flip_share", "spec.data.start"]
    assert not (tmp_path / "features").exists()


def test_the_command_counts_the_clips_that_a_training_takes(
    spec: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    (clips := tmp_path / "clips").mkdir()
    for name, size in (("a", 64), ("b", 32)):
        Image.new("RGB", (size, size)).save(clips / f"{name}.png")
        (clips / f"{name}.txt").write_text(f"a picture {name}")
    dataset = FolderSpec(name="pictures", path=str(clips))
    changes = {
        "data.dataset": dataset,
        "data.num_frames": 1,
        "data.batch_size": 1,
        "data.min_pixels": 64 * 64,
    }
    told = precompute_features(replace(spec, changes), options, tmp_path / "features")
    assert told[0] == "latents, text of 1 clip"


def test_the_command_is_for_trainings(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["data", "precompute", "experiments.tiny"]) == 2
    assert "is no training, whose data could be encoded" in capsys.readouterr().err


def test_latents_alone_leave_captions_to_the_text_encoder(
    spec: TrainSpec, options: RunOptions, tmp_path: Path, losses_of: Losses, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = PrecomputedSpec(name=tmp_path.name, text=False)
    latents = replace(spec, "data.precomputed", before)
    with monkeypatch.context() as patched:
        patched.setattr(Encoders, "of_captions", lambda *_: pytest.fail("a caption is encoded"))
        precompute_features(latents, options, tmp_path / "features")
    raw = losses_of(mm_train.train(spec, options).run_dir)
    assert losses_of(mm_train.train(latents, at(options, tmp_path / "features")).run_dir) == raw


def test_an_index_with_its_features_trains_where_its_clips_are_not(
    spec: TrainSpec, options: RunOptions, tmp_path: Path, losses_of: Losses
) -> None:
    clips, index, folder = tmp_path / "clips", tmp_path / "index", tmp_path / "features"
    with_own_clips(spec, options, clips)
    assert app(["data", "index", str(clips / "manifest.jsonl"), str(index)]) == 0
    digest = json.loads((index / "index.json").read_text())["digest"]
    indexed = replace(spec, "data.dataset", IndexSpec(name="own", digest=digest, path=str(index)))
    raw = losses_of(mm_train.train(indexed, options).run_dir)
    precompute_features(indexed, options, folder)
    clips.rename(tmp_path / "elsewhere")
    clips.mkdir()
    result = mm_train.train(from_features(indexed, folder), at(options, folder))
    assert losses_of(result.run_dir) == raw
