"""What a dataset is as an input, against a second plain implementation."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mm_config.content import Input, remembered
from mm_config.content.parts import kept_parts
from mm_config.schema import UserError
from mm_config.specs import ManifestSpec, ShapesSpec
from mm_data import dataset_input, prepare

CLIPS = {"a.mp4": (b"first", "a red circle"), "b/ü.mp4": (b"second", "ein blaues Quadrat — „schnell“")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clips" / "b").mkdir(parents=True)
    for name, (content, _) in CLIPS.items():
        (tmp_path / "clips" / name).write_bytes(content)
    rows = [{"path": name, "caption": caption} for name, (_, caption) in CLIPS.items()]
    (tmp_path / "clips" / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "clips"


def content(folder: Path, **fields: str) -> Input:
    spec = ManifestSpec(name="my/clips", revision="7", path=str(folder), **fields)
    dataset = prepare(spec, cache_dir=folder.parent / "cache")
    return dataset_input(spec, dataset, folder.parent / "contents")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_dataset_is_its_sorted_rows(folder: Path) -> None:
    rows = sorted(
        f'["{sha256(clip)}",{json.dumps(caption, ensure_ascii=False)},null]\n'.encode()
        for clip, caption in CLIPS.values()
    )
    found = content(folder)
    assert found.digest == sha256(b"".join(rows))
    assert (found.kind, found.name, found.revision) == ("manifest-dataset", "my/clips", "7")
    kept = kept_parts(folder.parent / "contents", found.digest)
    assert kept is not None and [part.name for part in kept] == list(CLIPS)


def test_a_missing_clip_is_another_content(folder: Path) -> None:
    before = content(folder).digest
    (folder / "a.mp4").unlink()
    rows = sorted([f'[null,"{CLIPS["a.mp4"][1]}",null]\n'.encode(), _row("b/ü.mp4")])
    assert before != content(folder).digest == sha256(b"".join(rows))


def _row(name: str) -> bytes:
    clip, caption = CLIPS[name]
    return f'["{sha256(clip)}",{json.dumps(caption, ensure_ascii=False)},null]\n'.encode()


def test_a_pinned_digest_is_met_or_refused_by_name(folder: Path) -> None:
    right = content(folder).digest
    assert content(folder, digest=right).pinned
    with pytest.raises(UserError, match=rf"^spec\.data\.dataset\.digest: is {'0' * 64}, but .* {right}"):
        content(folder, digest="0" * 64)


def test_a_second_look_reads_only_what_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    monkeypatch.setattr(remembered, "RACY_NS", 0)
    read: list[str] = []
    real = hashlib.file_digest

    def counted(file: object, *rest: object) -> object:
        read.append(Path(file.name).name)  # pyright: ignore[reportAttributeAccessIssue]
        return real(file, *rest)  # pyright: ignore[reportCallIssue, reportArgumentType]

    monkeypatch.setattr(hashlib, "file_digest", counted)
    content(folder)
    assert sorted(read) == ["a.mp4", "ü.mp4"]
    content(folder)
    assert len(read) == 2
    (folder / "a.mp4").write_bytes(b"other")
    content(folder)
    assert read[2:] == ["a.mp4"]


def test_rendered_clips_are_named_by_what_is_rendered(tmp_path: Path) -> None:
    def shapes(seed: int) -> Input:
        spec = ShapesSpec(clips_per_caption=1, seed=seed, size=32, num_frames=2)
        return dataset_input(spec, prepare(spec, cache_dir=tmp_path), tmp_path / "contents")

    first, other = shapes(0), shapes(1)
    assert first.kind == "shapes-dataset" and first.revision == "1"
    assert (first.name, first.digest) != (other.name, other.digest) and first.name != other.name
