"""Features that MindSpeed-MM extracted: converted, trained from, and refused where they are not whole."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

import mm_data
import mm_train
from mm_config import dump, replace
from mm_config.cli.app import app
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.data import Cache, Order, PrecomputedSpec
from mm_config.specs.datasets import ManifestSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.train import TrainSpec
from mm_models import build_autoencoder, build_text_encoder
from mm_train.mindspeed_features import convert
from tests.mm_train.kept_features import asks_of, prepared

Losses = Callable[[Path], list[float]]


@pytest.fixture
def spec(small: TrainSpec) -> TrainSpec:
    changes = {
        "schedule.steps": 3,
        "schedule.warmup_steps": 1,
        "data.cache": Cache.NONE,
        "data.caption_dropout": 0.0,
        "data.order": Order.SEQUENTIAL,
    }
    return replace(small, changes)


def extract(spec: TrainSpec, options: RunOptions, folder: Path) -> None:
    """Writes what MindSpeed-MM's extraction would, with encoders of ours: a pickled file for each clip."""
    dataset = prepared(spec, options)
    autoencoder, text_encoder = build_autoencoder(spec.autoencoder), build_text_encoder(spec.text_encoder)
    (folder / "features").mkdir(parents=True)
    lines = []
    for asked in asks_of(spec, dataset):
        clip = mm_data.load_clip(asked, spec.data)
        features = text_encoder.encode([clip.caption])
        name = f"features/{asked.record.path.name.replace('.', '_')}.pt"
        content = {
            "video": autoencoder.encode(mm_data.to_model_range(clip.frames[None]))[0],
            "prompt_ids": features,
            "prompt_mask": features.any(-1).long(),
        }
        torch.save(content, folder / name)
        lines.append(json.dumps({"file": name, "captions": clip.caption}))
    (folder / "data.jsonl").write_text("\n".join(lines))


def test_converted_features_train_as_the_clips_that_they_were_made_of(
    spec: TrainSpec,
    options: RunOptions,
    tmp_path: Path,
    losses_of: Losses,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = losses_of(mm_train.train(spec, options).run_dir)
    extract(spec, options, tmp_path / "extracted")
    dump(spec, tmp_path / "spec.json")
    words = ["data", "precompute", str(tmp_path / "spec.json"), "--out", str(tmp_path / "features")]
    # People give the folder inside, whose name then comes twice.
    assert app([*words, "--from-mindspeed", str(tmp_path / "extracted" / "features")]) == 0
    out = capsys.readouterr().out.splitlines()
    known = {"PrecomputedSpec": PrecomputedSpec, "ManifestSpec": ManifestSpec}
    said: dict[str, Any] = {
        name: eval(next(line for line in out if line.startswith(f"{name}=")).partition("=")[2], known)
        for name in ("dataset", "precomputed")
    }
    assert not said["precomputed"].empty_caption
    before = attrs.evolve(said["precomputed"], name=str(tmp_path))
    changed = replace(spec, {"data.dataset": said["dataset"], "data.precomputed": before})
    places = Locations((Location(str(tmp_path), tmp_path / "features", "test"),))
    result = mm_train.train(changed, attrs.evolve(options, locations=places))
    assert losses_of(result.run_dir) == raw


def test_a_folder_that_was_moved_into_another_features_is_found_and_said(
    spec: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    folder = tmp_path / "extracted"
    extract(spec, options, folder)
    (folder / "features").rename(folder / "moved")
    (folder / "features").mkdir()
    (folder / "moved").rename(folder / "features" / "features")
    told = convert(spec, folder, tmp_path / "out", options).told
    assert told == ("32 files lie in another folder features than data.jsonl says; they were found",)


def test_all_that_is_wrong_with_extracted_features_is_told(
    spec: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    folder = tmp_path / "extracted"
    extract(spec, options, folder)
    first, second, third, *rest = (folder / "data.jsonl").read_text().splitlines()
    others = [first, '{"captions": "x"}', '{"file": "../secret.pt"}', "no JSON"]
    (folder / "data.jsonl").write_text("\n".join([first, second, third, *rest, *others]))
    with pytest.raises(UserError) as caught:
        convert(spec, folder, tmp_path / "out", options)
    told = [str(problem) for problem in caught.value.problems]
    assert len(told) == 4
    assert "data.jsonl:33" in told[0]
    assert "clips of one name in several folders overwrote each other's features" in told[0]
    assert 'expected an object with "file"' in told[1]
    assert "there is no '../secret.pt'" in told[2]

    (folder / "data.jsonl").write_text("\n".join([first, second, third, *rest]))
    names = [json.loads(line)["file"] for line in (first, second, third)]
    (folder / names[0]).write_bytes(b"no pickle")
    content = torch.load(folder / names[1], weights_only=True)
    torch.save({**content, "video": content["video"][:, :2]}, folder / names[1])
    torch.save({**content, "run": re.compile("a")}, folder / names[2])
    with pytest.raises(UserError) as caught:
        convert(spec, folder, tmp_path / "out", options)
    told = [str(problem) for problem in caught.value.problems]
    assert [re.search(r"features/\w+\.pt", line)[0] for line in told] == names  # type: ignore[index]
    assert "video is [9, 2, 8, 8], the spec's latents are [9, 5, 8, 8]" in told[1]
    assert all("can't be read" in line for line in told)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "data.jsonl: can't be read: 'utf-8' codec"),
        (b"[" * 100_000, "data.jsonl:1: maximum recursion depth exceeded"),
        (b'{"file": "a.pt", "captions": "\\ud800"}', "data.jsonl:1: 'utf-8' codec can't encode"),
        ('{"file": "a\u2028b.pt", "captions": "one\u2028line"}'.encode(), "data.jsonl:1: there is no"),
    ],
)
def test_a_list_of_strange_characters_is_a_line(
    spec: TrainSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    (tmp_path / "data.jsonl").write_bytes(content)
    dump(spec, tmp_path / "spec.json")
    words = ["data", "precompute", str(tmp_path / "spec.json"), "--out", str(tmp_path / "features")]
    assert app([*words, "--from-mindspeed", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_condition_of_given_frames_is_taken_over_without_its_mask(
    spec: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    extract(spec, options, tmp_path / "theirs")
    given = {"model.conditioning": Conditioning.FIRST_FRAME, "model.in_channels": 22}
    first: TrainSpec = replace(spec, given)
    mask = torch.zeros(4, 5, 8, 8)
    mask[:, 0] = 1
    files = sorted((tmp_path / "theirs" / "features").iterdir())
    content, condition = {}, torch.zeros(())
    for number, file in enumerate(files):
        content = torch.load(file, weights_only=True)
        condition = torch.full((9, 5, 8, 8), number / 8)
        whole = condition if number % 2 else torch.cat((mask, condition))
        torch.save({**content, "i2v_vae_feature": whole[None]}, file)
    store = convert(first, tmp_path / "theirs", tmp_path / "ours", options).features.stores["condition"]
    rows = sorted((store.read(key)["latents"].float() for key in store), key=lambda row: float(row.mean()))
    for number, row in enumerate(rows):
        assert torch.equal(row, torch.full((9, 5, 8, 8), number / 8))

    torch.save({**content, "i2v_vae_feature": torch.cat((mask.flip(1), condition))}, files[-1])
    with pytest.raises(UserError, match=r"i2v_vae_feature \[13, 5, 8, 8\] is not what .* first_frame makes"):
        convert(first, tmp_path / "theirs", tmp_path / "again", options)
