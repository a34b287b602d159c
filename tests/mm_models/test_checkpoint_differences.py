"""What of two checkpoints is told as different: manifests and tensors, not the notes of their writer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mm_config.schema import UserError
from mm_models.checkpoint_differences import checkpoint_differences, tensor_digests


def test_checkpoints_without_a_sound_manifest_differ(tmp_path: Path) -> None:
    for name, manifest in (("a", '{"files": {}}'), ("b", '{"files": []}'), ("c", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(manifest)
    assert not list(checkpoint_differences(3, tmp_path / "a", tmp_path / "a"))
    for name in ("b", "c", "d"):
        (difference,) = checkpoint_differences(3, tmp_path / name, tmp_path / "a")
        assert str(difference) == "step 3: checkpoint manifest.json missing or unreadable -> whole"


def safetensors(file: Path, data: bytes, **metadata: str) -> Path:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"__metadata__": metadata, "proj_out.bias": entry}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return file


def test_tensors_are_compared_and_not_the_notes_of_their_writer(tmp_path: Path) -> None:
    one = tensor_digests(safetensors(tmp_path / "one", bytes(8), version="1", sharding="none"))
    assert one == tensor_digests(safetensors(tmp_path / "other", bytes(8), sharding="none", version="1"))
    assert one["proj_out.bias"].startswith("F32 2 ")
    assert one != tensor_digests(safetensors(tmp_path / "third", bytes(7) + b"1"))
    (tmp_path / "fourth").write_bytes(bytes(8) + b"no header")
    with pytest.raises(UserError, match="fourth: can't be read as safetensors"):
        tensor_digests(tmp_path / "fourth")
