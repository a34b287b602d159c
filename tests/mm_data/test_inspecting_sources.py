"""An inspection takes data as it lies: an index, a folder with pictures, a shard; strangers' files apart."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from PIL import Image

from mm_config.specs import DataSpec, IndexSpec, MixturePart, MixtureSpec, ShapesSpec
from mm_data import Dataset, prepare
from mm_data.index.table import IndexedRecords
from mm_data.looking import tokens
from mm_data.looking.inspect import VERB
from mm_data.looking.inspection import inspected
from mm_data.looking.subject import Subject
from tests.mm_data.looked import indexed, training, write_clips
from tests.mm_data.sources import index_of, listed


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    """What the verb prints as JSON; what it tells meanwhile goes elsewhere."""
    capsys.readouterr()
    assert VERB.run([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    indexed(tmp_path)
    said = printed(capsys, tmp_path / "index")
    names = ["long.mp4", "wide.mp4", "short.mp4", "tall.mp4", "copy.mp4", "again.mp4"]
    assert [one["name"] for one in said["looked_at"]] == names and said["buckets"] == []
    assert said["equal"] == [["long.mp4", "copy.mp4"]] and said["left_out"]["no such file"] == 1


def test_a_folder_with_captions_beside_clips_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    write_clips(folder)
    pixels = np.random.default_rng(3).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "still.png")
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text(f"caption of {path.stem}\n", "utf-8")
    said = printed(capsys, folder, "--runs-dir", tmp_path / "runs", "--out", tmp_path / "x.html")
    (still,) = (one for one in said["looked_at"] if one["name"] == "still.png")
    assert still["caption"] == "caption of still" and still["bad"] == ""
    assert still["measured"] == {"num_frames": 1, "fps": 0.0, "height": 40, "width": 60}
    assert said["rates"] == {"8": 6, "images": 1} and said["sizes"]["60x40"] == 1
    assert (tmp_path / "x.html").read_text("utf-8").count("data:image/jpeg") == 7


def test_a_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clips(tmp_path)
    with tarfile.open(tmp_path / "0001.tar", "w") as shard:
        for name in ("long.mp4", "wide.mp4"):
            shard.add(tmp_path / name, name)
            text = b"caption of " + name.encode()
            member = tarfile.TarInfo(Path(name).stem + ".txt")
            member.size = len(text)
            shard.addfile(member, io.BytesIO(text))
    said = printed(capsys, tmp_path / "0001.tar", "--runs-dir", tmp_path / "runs")
    assert [(one["caption"], one["bad"]) for one in said["looked_at"]] == [
        ("caption of long.mp4", ""),
        ("caption of wide.mp4", ""),
    ]
    assert [one["measured"]["num_frames"] for one in said["looked_at"]] == [40, 20]


def test_clips_of_strangers_are_decoded_in_processes_with_limits(tmp_path: Path) -> None:
    dataset = indexed(tmp_path)
    data = DataSpec(dataset=ShapesSpec(), batch_size=1, num_frames=9, height=64, width=96, workers=1)
    plain = inspected(Subject("clips", data.dataset, dataset, data, 0), 3)
    apart = attrs.evolve(data, isolated=True)
    assert inspected(Subject("clips", apart.dataset, dataset, apart, 0), 3).peeks == plain.peeks


def test_fields_that_are_changed_change_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = indexed(tmp_path).records
    assert isinstance(records, IndexedRecords)
    path, digest = str(tmp_path / "index"), records.head.digest
    experiment = training(
        tmp_path,
        "from mm_config.specs import IndexSpec",
        f"INDEX = IndexSpec(name='index', digest={digest!r}, path={path!r})",
        "SPEC = replace(SPEC, 'data.dataset', INDEX)",
    )
    everything = printed(capsys, experiment)
    strict = printed(capsys, experiment, "--spec.data.max-aspect-ratio", "3")
    assert sum(strict["left_out"].values()) == sum(everything["left_out"].values()) + 1


def test_cuts_of_one_file_are_no_copies_of_each_other(tmp_path: Path) -> None:
    write_clips(tmp_path)
    cuts = [("long.mp4", (0, 20)), ("long.mp4", (20, 40)), ("copy.mp4", (20, 40)), ("tall.mp4", None)]
    index_of(tmp_path, [listed(tmp_path, name, "x", cut=cut) for name, cut in cuts], tmp_path / "index")
    records = IndexedRecords(tmp_path / "index")
    dataset = Dataset(records.root, records, records.head.order_key)
    indexed_rows = inspected(Subject("cuts", ShapesSpec(), dataset, None, 0), 9)
    plain = Dataset(dataset.root, [attrs.evolve(one, measured=None) for one in records], "key")
    assert indexed_rows.equal == [(1, 2)] == inspected(Subject("cuts", ShapesSpec(), plain, None, 0), 9).equal
    assert indexed_rows.numbers.seconds.tolist() == [2.5, 2.5, 2.5, 1.5]


def test_tokens_are_those_of_the_training_s_text_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's makes one of each word, and one of the whole; the captions have 5 and 3 words."""
    said = printed(capsys, training(tmp_path))
    assert said["quantiles"]["tokens of captions, of clips looked at"]["1"] == 6.0
    assert (said["too_many_tokens"], said["tokens_unknown"]) == (0, "")
    short = ["--spec.text-encoder.max-tokens", "5"]
    assert printed(capsys, training(tmp_path), *short)["too_many_tokens"] == 1
    monkeypatch.setattr(tokens, "GROUP", "nobody's")
    unknown = printed(capsys, training(tmp_path))
    assert unknown["tokens_unknown"] == "no package says how hashed-text-encoder makes tokens"
    assert "tokens of captions, of clips looked at" not in unknown["quantiles"]


def test_a_mixture_of_indexes_is_counted_whole_and_across_its_parts(tmp_path: Path) -> None:
    parts: list[MixturePart] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        records = indexed(tmp_path / name).records
        assert isinstance(records, IndexedRecords)
        index = IndexSpec(name=name, digest=records.head.digest, path=str(records.folder))
        parts.append(MixturePart(dataset=index))
    spec = MixtureSpec(parts=tuple(parts))
    data = DataSpec(dataset=spec, batch_size=4, num_frames=9, height=64, width=96, fps=8.0)
    data = attrs.evolve(data, max_aspect_ratio=3.0)
    dataset = prepare(spec, cache_dir=tmp_path)
    found = inspected(Subject("both", spec, dataset, data, 0), 12)
    assert found.numbers.frames.tolist() == [40, 20, 3, 12, 40, 40] * 2
    assert found.equal == [(0, 4, 6, 10), (1, 7), (2, 8), (3, 9), (5, 11)]
    assert found.states[:6] == found.states[6:] and found.states[3] == "9x64x96"
    assert found.left_out["no such file"] == 2 and found.counts is not None and found.counts.clips == 8


def test_batches_of_a_number_of_tokens_are_those_of_the_training_s_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo's autoencoder folds 4 frames and 8 x 8 pixels, a patch is 4 x 4: 18 and 30 tokens a clip."""
    records = indexed(tmp_path).records
    assert isinstance(records, IndexedRecords)
    index = str(tmp_path / "index")
    experiment = training(
        tmp_path,
        "from mm_config.specs import BucketSpec, IndexSpec",
        f"INDEX = IndexSpec(name='index', digest={records.head.digest!r}, path={index!r})",
        "BUCKETS = tuple(BucketSpec(num_frames=frames, height=64, width=96) for frames in (9, 17))",
        "CHANGES = {'data.dataset': INDEX, 'data.buckets': BUCKETS, 'data.batch_size': 1}",
        "SPEC = replace(SPEC, CHANGES | {'data.tokens_per_batch': 95, 'data.fps': 8.0})",
    )
    assert printed(capsys, experiment)["buckets"] == [
        {"shape": "9x64x96", "clips": 1, "batches": "0.2 of 5", "tail": 1},
        {"shape": "17x64x96", "clips": 4, "batches": "1.33333 of 3", "tail": 1},
    ]
