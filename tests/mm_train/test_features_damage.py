"""Features that were damaged, or left unfinished by a killed process: found, and made again."""

import hashlib
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.train import TrainSpec
from mm_data import Dataset, batch_indices
from mm_train.features.encoding import Encoders
from tests.mm_train.kept_features import all_of, asks_of, damage, equal, opened, prepared, with_own_clips
from tests.mm_train.test_features import count_clips


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("set", "cut"),
        ("set", "missing"),
        ("index", "cut"),
        ("index", "flipped bit"),
        ("text", "missing"),
        ("text", "flipped bit"),
        ("latents", "cut"),
        ("latents", "flipped bit"),
        ("latents", "another's"),
    ],
)
def test_a_damaged_cache_is_made_again(
    what: str,
    how: str,
    small: TrainSpec,
    options: RunOptions,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = prepared(small, options)
    expected = [one.clone() for one in all_of(opened(small, dataset, tmp_path), small, dataset)]
    before = digests(tmp_path)
    patterns = {"set": "sets/*", "index": "latents-*/index.arrow"}
    first, second, *_ = [*sorted(tmp_path.rglob(patterns.get(what, f"{what}-*/*.safetensors"))), None]
    assert first is not None
    content = bytearray(first.read_bytes())
    content[len(content) // 2 if what == "index" else -5] ^= 1
    if how == "another's":
        assert second is not None
        content = bytearray(second.read_bytes())
    first.unlink()
    if how != "missing":
        first.write_bytes(content[: min(100, len(content) // 2)] if how == "cut" else content)
    assert equal(all_of(opened(small, dataset, tmp_path), small, dataset), expected)
    said = "".join(capsys.readouterr())
    if (what, how) not in {("set", "missing"), ("index", "cut"), ("index", "flipped bit")}:
        assert said.count("is damaged and made again") == 1
        assert str(first) in said
    # Shards tell what an index that is damaged told; it is written where something is made.
    if what != "index":
        assert digests(tmp_path) == before


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and ".cache/features" in str(path)
    }


def test_a_start_reads_no_row_and_a_run_those_alone_that_it_draws(
    small: TrainSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(small, {"data.batch_size": 2, "schedule.steps": 2, "schedule.warmup_steps": 1})
    own = RunOptions(runs_dir=tmp_path)
    dataset = prepared(spec, own)
    losses = metrics(mm_train.train(spec, own).run_dir)
    features = opened(spec, dataset, tmp_path)
    drawn = drawn_clips(spec, dataset)
    shards = {index: shard_of(features, spec, dataset, index) for index in range(len(dataset.records))}
    others = set(shards.values()) - {shards[index] for index in drawn}
    assert others

    # A start over files that aren't there neither fails nor makes them.
    files = sorted(tmp_path.rglob("*.safetensors"))
    files = [file for file in files if "features" in file.parts]
    aside = tmp_path / "aside"
    aside.mkdir()
    for file in files:
        file.rename(aside / file.name)
    features = opened(spec, dataset, tmp_path)
    assert "damaged" not in "".join(capsys.readouterr())
    for file in files:
        if file not in others:
            (aside / file.name).rename(file)
    again = mm_train.train(spec, own)
    assert metrics(again.run_dir) == losses
    assert "damaged" not in "".join(capsys.readouterr())
    index = next(index for index, shard in shards.items() if shard in others)
    features.latents_of(features.kept(asks_of(spec, dataset)[index]))
    assert "damaged" in capsys.readouterr().err


def drawn_clips(spec: TrainSpec, dataset: Dataset) -> set[int]:
    return {
        index
        for step in range(2)
        for index in batch_indices(dataset.order_key, spec.seed, step, 2, len(dataset.records))
    }


def shard_of(features: object, spec: TrainSpec, dataset: Dataset, index: int) -> Path:
    names, stores = features._names, features._stores  # type: ignore[attr-defined]
    kept = names.kept(asks_of(spec, dataset)[index])
    return stores["latents"].shard_of(names.of_clip("latents", kept))


def metrics(run_dir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_damaged_shard_whose_clip_is_gone_ends_the_run_and_names_it(
    small: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    spec = with_own_clips(small, options, tmp_path / "clips")
    dataset = prepared(spec, options)
    features = opened(spec, dataset, tmp_path)
    for file in tmp_path.rglob("latents-*/*.safetensors"):
        file.unlink()
    [damaged] = damage(spec, 1)
    with pytest.raises(UserError, match=rf"{damaged.name}: could be read when features were made; decode: "):
        features.latents_of(features.kept(asks_of(spec, dataset)[0]))


def test_who_is_killed_leaves_whole_shards_which_are_not_made_again(
    small: TrainSpec, options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = prepared(small, options)
    encoded, of_clip = [], Encoders.of_clip

    def killed(*args: Any) -> Any:
        encoded.append(None)
        if len(encoded) == 21:
            os.kill(os.getpid(), signal.SIGKILL)
        return of_clip(*args)

    with monkeypatch.context() as patched:
        patched.setattr(Encoders, "of_clip", killed)
        process = multiprocessing.get_context("fork").Process(target=opened, args=(small, dataset, tmp_path))
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("latents-*/*.safetensors")}
    assert len(shards) == 2

    counted = count_clips(monkeypatch)
    found = all_of(opened(small, dataset, tmp_path), small, dataset)
    assert len(counted) == 32 - 16
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert equal(found, all_of(opened(small, dataset, tmp_path / "whole"), small, dataset))
