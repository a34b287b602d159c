"""What weights are as an input: the files that are loaded, each by name, size and bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from experiments import tiny_high
from mm_config import replace
from mm_config.content import Part
from mm_config.content.parts import digest_of_parts, kept_parts
from mm_config.options import Locations, RunOptions
from mm_config.options.locations import Location
from mm_config.runs import open_run
from mm_config.schema import UserError
from mm_config.specs import RandomWeights, ReleasedWeights, TrainedBy, Umt5TextEncoderSpec, WanAutoencoderSpec
from mm_models import checkpoint, encoder_inputs, weights_input
from mm_models.contents import loaded_files

FIELD = "spec.high_noise"
MIB = 2**20


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Two shards of 3 MiB with their index, a configuration, and files that nothing loads."""
    folder = tmp_path / "wan" / "transformer"
    folder.mkdir(parents=True)
    for shard in "12":
        (folder / f"model-{shard}.safetensors").write_bytes(bytes(3 * MIB))
    names = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("read me")
    (folder / ".lock").touch()
    return folder


def digest(folder: Path, contents: Path, **fields: str) -> str:
    found = weights_input(ReleasedWeights(name="my/wan", **fields), folder, contents, FIELD)
    assert found is not None
    return found.digest


def test_a_release_is_its_loaded_files(release: Path, tmp_path: Path) -> None:
    names = ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"]
    files = [(name, (release / name).read_bytes()) for name in names]
    rows = sorted(
        json.dumps([name, len(data), hashlib.sha256(data).hexdigest()], separators=(",", ":")) + "\n"
        for name, data in files
    )
    before = digest(release, tmp_path)
    assert before == hashlib.sha256("".join(rows).encode()).hexdigest()
    kept = kept_parts(tmp_path, before)
    assert kept is not None and sorted(part.name for part in kept) == names
    (release / "README.md").write_text("other")
    assert digest(release.rename(tmp_path / "elsewhere"), tmp_path) == before


@pytest.mark.parametrize("name", ["model-1.safetensors", "model.safetensors.index.json", "config.json"])
def test_a_change_anywhere_is_another_release(name: str, release: Path, tmp_path: Path) -> None:
    before, file = digest(release, tmp_path), release / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # Of a shard, a byte beyond the first and the last MiB.
    file.write_bytes(content)
    assert digest(release, tmp_path) != before


def test_the_files_of_each_layout(release: Path, tmp_path: Path) -> None:
    def names(path: Path) -> list[str]:
        return sorted(file.relative_to(tmp_path).as_posix() for file in loaded_files(path))

    of_release = ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"]
    assert names(release) == [f"wan/transformer/{name}" for name in of_release]
    assert names(release / "model.safetensors.index.json") == names(release)
    one = ["wan/transformer/config.json", "wan/transformer/model-1.safetensors"]
    assert names(release / "model-1.safetensors") == one

    tensors = {"model": {"weight": torch.zeros(2)}, "optimizer": {"moment": torch.zeros(2)}}
    checkpoint.save(tmp_path / "step-00000001", tensors, {})
    (file,) = (tmp_path / "step-00000001" / "model").iterdir()
    assert names(tmp_path / "step-00000001") == [f"step-00000001/model/{file.name}"]

    megatron = tmp_path / "megatron" / "release" / "mp_rank_00"
    megatron.mkdir(parents=True)
    torch.save({}, megatron / "model_optim_rng.pt")
    assert names(tmp_path / "megatron") == ["megatron/release/mp_rank_00/model_optim_rng.pt"]

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file({"lora": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text("{}")
    assert names(adapter) == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]


def test_a_digest_of_weights_is_pinned_and_drawn_ones_are_none(release: Path, tmp_path: Path) -> None:
    right = digest(release, tmp_path)
    assert digest(release, tmp_path, digest=right) == right
    with pytest.raises(UserError, match=rf"^spec\.high_noise\.digest: is {'0' * 64}, but .* is {right}"):
        digest(release, tmp_path, digest="0" * 64)
    drawn = RandomWeights(seed=1)
    assert weights_input(drawn, drawn, tmp_path, FIELD) is None


def test_encoders_count_with_their_tokenizers_and_only_where_they_are(tmp_path: Path) -> None:
    text, tokenizer, vae = (tmp_path / "wan" / name for name in ("text_encoder", "tokenizer", "vae"))
    for folder in (text, tokenizer, vae):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    save_file({"x": torch.zeros(1)}, text / "model.safetensors")
    (tokenizer / "tokenizer_config.json").write_text("{}")
    (tokenizer / "spiece.model").write_bytes(b"vocabulary")
    encoders = {
        "spec.text_encoder": Umt5TextEncoderSpec(
            weights=ReleasedWeights(name="wan", subfolder="text_encoder")
        ),
        "spec.autoencoder": WanAutoencoderSpec(weights=ReleasedWeights(name="absent")),
        "spec.image_encoder": None,
    }
    options = RunOptions(
        tmp_path / "runs", locations=Locations((Location("wan", tmp_path / "wan", "the test"),))
    )
    first = encoder_inputs(encoders, options)
    assert list(first) == ["spec.text_encoder.weights"]
    one = first["spec.text_encoder.weights"]
    assert (one.kind, one.name, one.revision) == ("released-weights", "wan/text_encoder", "main")
    (tokenizer / "spiece.model").write_bytes(b"Vocabulary")
    assert encoder_inputs(encoders, options)["spec.text_encoder.weights"].digest != one.digest


def test_weights_of_a_run_are_what_it_was_made_of_else_their_files(tmp_path: Path) -> None:
    spec = replace(tiny_high.SPEC, "name", "tiny_high")

    def taken(**recorded: dict[str, object]) -> tuple[Path, str, object]:
        run = open_run(spec, RunOptions(tmp_path / "runs"), **recorded)  # pyright: ignore[reportArgumentType]
        folder = run.checkpoints_dir / "step-00000450"
        checkpoint.save(folder, {"model": {"weight": torch.zeros(2)}}, {})
        run.finish({"steps": 450, "checkpoint": "checkpoints/step-00000450"})
        found = weights_input(TrainedBy(spec=spec), folder, tmp_path / "contents", FIELD)
        assert found is not None and found.details["run"] == run.record.path
        return folder, found.digest, run.record.made_of

    _, digest_of_recorded, made_of = taken(inputs={})
    content = f'{{"kind":"trained-by","made_of":"{made_of}","orders":{{}},"step":450,"v":1,"weights":"last"}}'
    assert digest_of_recorded == hashlib.sha256(content.encode()).hexdigest()
    folder, digest_of_files, made_of = taken()
    assert made_of is None
    (file,) = (folder / "model").iterdir()
    row = (f"model/{file.name}", file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
    assert digest_of_files == digest_of_parts([Part(file.name, row)])
