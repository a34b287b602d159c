"""Files that would run code when they are unpickled: refused by name, and nothing has run."""

import argparse
import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from mm_config.schema.errors import UserError
from mm_models.weights.opening import open_weights
from mm_models.weights.torch_dcp import METADATA
from tests.mm_models.weight_files import T2V, values


class Touch:
    """Makes a file when it is unpickled by a loader that lets it."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.made),)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return tmp_path / "made-by-the-file"


def assert_refused(path: Path, made: Path, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        weights = open_weights(path)
        for tensor in weights.tensors.values():
            tensor.read()
    assert not made.exists()
    for part in parts:
        assert part in str(caught.value)


def test_the_attack_works_on_a_loader_that_executes(made: Path, tmp_path: Path) -> None:
    torch.save({"model": Touch(made)}, tmp_path / "w.pt")
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert made.exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_a_file_of_torch_save(suffix: str, made: Path, tmp_path: Path) -> None:
    content = {**values(T2V), "x": Touch(made)}
    torch.save(content, tmp_path / f"w{suffix}")
    assert_refused(tmp_path / f"w{suffix}", made, "holds Python objects that are never loaded: posix.mkdir")
    torch.save(content, tmp_path / f"old{suffix}", _use_new_zipfile_serialization=False)
    assert_refused(tmp_path / f"old{suffix}", made, "can't be read as tensors of torch.save")


def test_a_plain_pickle_under_the_suffixes_of_weights(made: Path, tmp_path: Path) -> None:
    for suffix in (".pt", ".pth", ".bin", ".safetensors"):
        (tmp_path / f"w{suffix}").write_bytes(pickle.dumps(Touch(made)))
        assert_refused(tmp_path / f"w{suffix}", made, "can't be read")


def test_values_that_strides_repeat_beyond_the_file(made: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "w.pt")
    assert_refused(tmp_path / "w.pt", made, "a is (1000000, 1000000), but its values have 4 bytes")


def test_a_release_of_mindspeed(made: Path, tmp_path: Path) -> None:
    (tmp_path / "release" / "mp_rank_00").mkdir(parents=True)
    file = tmp_path / "release" / "mp_rank_00" / "model_optim_rng.pt"
    torch.save({"model": values(T2V), "rng_state": Touch(made)}, file)
    assert_refused(tmp_path, made, str(file), "posix.mkdir")


def test_a_trained_file_of_mindspeed_is_refused_naming_its_arguments(made: Path, tmp_path: Path) -> None:
    (tmp_path / "iter_0000700" / "mp_rank_00").mkdir(parents=True)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("700")
    file = tmp_path / "iter_0000700" / "mp_rank_00" / "model_optim_rng.pt"
    torch.save({"model": values(T2V), "args": argparse.Namespace(lr=1e-5)}, file)
    hint = "MindSpeed-MM's own converter (its command mm-convert, not our `mm convert`)"
    told = "never loaded: argparse.Namespace; a trained MindSpeed-MM file carries its arguments"
    assert_refused(tmp_path, made, told, hint)


def saved_dcp(folder: Path) -> Path:
    save_distributed(values(T2V), checkpoint_id=folder, no_dist=True)
    assert open_weights(folder).tensors["proj_out.bias"].read().shape == (16,)
    return folder / METADATA


@pytest.mark.parametrize("place", ["whole", "planner_data", "storage_meta"])
def test_the_metadata_of_torch_dcp(place: str, made: Path, tmp_path: Path) -> None:
    metadata = saved_dcp(tmp_path / "c")
    honest = pickle.loads(metadata.read_bytes())
    if place == "whole":
        honest = Touch(made)
    else:
        setattr(honest, place, Touch(made))
    metadata.write_bytes(pickle.dumps(honest))
    assert_refused(tmp_path / "c", made, str(metadata), "names posix.mkdir, which is never loaded")


@pytest.mark.parametrize("name", ["torch.load", "builtins.eval", "torch.serialization.load", "torch._C"])
def test_no_other_global_is_looked_up(name: str, made: Path, tmp_path: Path) -> None:
    metadata = saved_dcp(tmp_path / "c")
    module, _, leaf = name.rpartition(".")
    metadata.write_bytes(f"c{module}\n{leaf}\n.".encode())
    assert_refused(tmp_path / "c", made, f"names {name}, which is never loaded")


def test_the_content_of_a_distcp_file(made: Path, tmp_path: Path) -> None:
    saved_dcp(tmp_path / "c")
    (file,) = (tmp_path / "c").glob("*.distcp")
    evil = io.BytesIO()
    torch.save({"x": Touch(made), "room": torch.zeros(10_000)}, evil)
    content = evil.getvalue()
    # Every entry of the file becomes the attack, as far as it has room.
    metadata = pickle.loads((tmp_path / "c" / METADATA).read_bytes())
    for info in metadata.storage_data.values():
        info.offset, info.length = 0, len(content)
    (tmp_path / "c" / METADATA).write_bytes(pickle.dumps(metadata))
    file.write_bytes(content)
    assert_refused(tmp_path / "c", made, str(file), "can't be read", "UnpicklingError")


@pytest.mark.parametrize("outside", ["../secret", "/etc/hostname", "a/../../secret"])
def test_metadata_and_indexes_do_not_lead_out_of_their_folder(
    outside: str, made: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").touch()
    metadata = saved_dcp(tmp_path / "c")
    stored = pickle.loads(metadata.read_bytes())
    for info in stored.storage_data.values():
        info.relative_path = outside
    metadata.write_bytes(pickle.dumps(stored))
    assert_refused(tmp_path / "c", made, "which is outside the folder")
    (tmp_path / "s").mkdir()
    index = {"weight_map": {"proj_out.bias": outside}}
    (tmp_path / "s" / "w.safetensors.index.json").write_text(json.dumps(index))
    assert_refused(tmp_path / "s", made, "lists files outside its folder")


def test_metadata_that_is_cut_short_or_empty(made: Path, tmp_path: Path) -> None:
    metadata = saved_dcp(tmp_path / "c")
    content = metadata.read_bytes()
    for damaged in (b"", content[:50], content[:-20], pickle.dumps({}), pickle.dumps(3)):
        metadata.write_bytes(damaged)
        assert_refused(tmp_path / "c", made, "is no metadata of a distributed checkpoint")


def test_metadata_whose_parts_lie_outside_their_tensor(made: Path, tmp_path: Path) -> None:
    metadata = saved_dcp(tmp_path / "c")
    for sizes in ((4,), (10**12, 36), (-1, 36)):
        stored = pickle.loads(metadata.read_bytes())
        stored.state_dict_metadata["proj_out.weight"].chunks[0].sizes = torch.Size(sizes)
        (tmp_path / "c" / METADATA).write_bytes(pickle.dumps(stored))
        assert_refused(tmp_path / "c", made, "is no metadata of a distributed checkpoint: ValueError")
