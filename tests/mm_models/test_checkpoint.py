"""Checkpoints: what is saved comes back bit for bit, on any number of ranks."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

import mm_models
from mm_config.schema.errors import UserError
from mm_config.specs.wan import WanTransformerSpec
from mm_models import checkpoint
from mm_models.loading import load_group
from tests.mm_models.checkpoints import STATE, assert_same, filled, optimizer_of, save, save_sharded, shard


def test_what_is_saved_comes_back_bit_for_bit(tiny: WanTransformerSpec, tmp_path: Path) -> None:
    network, folder = filled(tiny), tmp_path / "step-00000700"
    save(folder, network)
    assert checkpoint.verify(folder) == []
    assert checkpoint.read_state(folder) == STATE
    other = mm_models.build(tiny, "cpu")
    mm_models.load(other, folder)
    assert_same(other.state_dict(), network.state_dict())
    moments = {name: torch.zeros_like(value) for name, value in optimizer_of(network).items()}
    load_group(folder, "optimizer", moments)
    assert_same(moments, optimizer_of(network))


def test_files_are_plain_safetensors_and_json(tiny: WanTransformerSpec, tmp_path: Path) -> None:
    network, folder = filled(tiny), tmp_path / "step-00000001"
    save(folder, network)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    (model,) = (folder / "model").iterdir()
    assert_same(dict(sorted(load_file(model).items())), dict(sorted(network.state_dict().items())))
    (optimizer,) = (folder / "optimizer").iterdir()
    assert torch.equal(load_file(optimizer)["step"], torch.tensor(700.0))


def test_every_file_is_on_the_disk_before_the_folder_gets_its_name(
    tiny: WanTransformerSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def record(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", record)
    folder = tmp_path / "step-00000001"
    save(folder, filled(tiny))
    monkeypatch.undo()
    manifest = (folder / "manifest.json").stat().st_ino
    files = {path.stat().st_ino for path in folder.rglob("*") if path.is_file()} - {manifest}
    folders = {path.stat().st_ino for path in (folder, folder / "model", folder / "optimizer", tmp_path)}
    assert len(files) == 3
    assert set(synced[: synced.index(manifest)]) == files
    assert set(synced[synced.index(manifest) + 1 :]) == folders
    assert synced[-1] == tmp_path.stat().st_ino


def test_a_non_tensor_and_a_number_that_json_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="optimizer holds non-tensors: \\['step'\\]"):
        checkpoint.save(tmp_path / "step-00000001", {"optimizer": {"step": 3}}, {})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.save(tmp_path / "step-00000001", {"model": {"w": torch.ones(2)}}, {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_two_ranks_save_and_one_loads(
    tiny: WanTransformerSpec, tmp_path: Path, run_ranks: Callable[..., None]
) -> None:
    folder = tmp_path / "step-00000700"
    run_ranks(save_sharded, tiny, folder)
    assert len(list((folder / "model").glob("*.safetensors"))) == 2
    network = mm_models.build(tiny, "cpu")
    mm_models.load(network, folder)
    assert_same(network.state_dict(), filled(tiny).state_dict())
    moments = {name: torch.zeros_like(value) for name, value in optimizer_of(network).items()}
    load_group(folder, "optimizer", moments)
    assert_same(moments, optimizer_of(filled(tiny)))


def _load_sharded(rank: int, spec: WanTransformerSpec, folder: Path) -> None:
    network = shard(mm_models.build(spec, "meta")).to_empty(device="cpu")
    mm_models.load(network, folder)
    assert_same(dict(network.state_dict()), filled(spec).state_dict())


def test_one_rank_saves_and_two_load(
    tiny: WanTransformerSpec, tmp_path: Path, run_ranks: Callable[..., None]
) -> None:
    save(tmp_path / "step-00000700", filled(tiny))
    run_ranks(_load_sharded, tiny, tmp_path / "step-00000700")


def test_weights_of_another_architecture_are_refused_by_name(
    tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "step-00000001"
    checkpoint.save(folder, {"model": {"proj_out.bias": torch.zeros(3), "head.weight": torch.zeros(1)}}, {})
    with pytest.raises(UserError) as caught:
        mm_models.load(mm_models.build(tiny, "cpu"), folder)
    count = len(tiny.parameter_shapes())
    missing, extra, misshapen = (problem.message for problem in caught.value.problems)
    assert missing.startswith(f"{count - 1} tensors are missing: scale_shift_table, ")
    assert missing.endswith(f", and {count - 11} more")
    assert extra == "1 tensor is not wanted: head.weight"
    assert misshapen == "1 tensor is of another shape: proj_out.bias is (3,), (16,) is wanted"
    with pytest.raises(UserError, match="holds no 'optimizer'"):
        load_group(folder, "optimizer", {})
    with pytest.raises(UserError, match="holds no weights that are known"):
        mm_models.load(mm_models.build(tiny, "cpu"), tmp_path)


def test_shards_that_do_not_make_whole_tensors_are_refused(
    tiny: WanTransformerSpec, tmp_path: Path, run_ranks: Callable[..., None]
) -> None:
    run_ranks(save_sharded, tiny, tmp_path / "step-00000700")
    first, _ = sorted((tmp_path / "step-00000700" / "model").iterdir())
    first.unlink()
    with pytest.raises(UserError, match=r"tensors are not whole: .*weight has 288 of 576 values, "):
        mm_models.load(mm_models.build(tiny, "cpu"), first.parent)


def test_there_is_no_latest_where_nothing_was_saved(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nowhere") is None
    assert checkpoint.latest(tmp_path) is None


def test_the_manifest_lists_every_other_file(tiny: WanTransformerSpec, tmp_path: Path) -> None:
    save(tmp_path / "step-00000001", filled(tiny))
    listed = json.loads((tmp_path / "step-00000001" / "manifest.json").read_text())["files"]
    groups = {name.split("/")[0] for name in listed}
    assert groups == {"model", "optimizer", "state.json"}
    assert not dist.is_initialized()


def test_a_state_that_is_no_sensible_file_is_a_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "state.json")
    with pytest.raises(UserError, match=r"state.json: can't be read: it is a pipe, no file"):
        checkpoint.read_state(tmp_path)
    (tmp_path / "state.json").unlink()
    (tmp_path / "state.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"state.json: is no JSON"):
        checkpoint.read_state(tmp_path)
