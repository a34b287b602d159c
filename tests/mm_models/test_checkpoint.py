"""Checkpoints: what is saved comes back bit for bit, on any number of ranks, and damage is found."""

import json
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import ProcessExitedException

import mm_models
from mm_config.schema.errors import UserError
from mm_config.specs.wan import WanTransformerSpec
from mm_models import checkpoint
from mm_models.loading import load_group

STATE = {"step": 700, "stream": {"seed": 2**40}, "loss": 0.1234567890123456}


def filled(spec: WanTransformerSpec, seed: int = 0) -> nn.Module:
    network = mm_models.build(spec, "cpu")
    mm_models.initialize(network, seed)
    return network


def optimizer_of(network: nn.Module) -> dict[str, Tensor]:
    """A moment per parameter and a step count without axes, as optimizers keep them."""
    moments = {f"{name}.exp_avg": parameter.detach() * 3 for name, parameter in network.named_parameters()}
    return {**moments, "step": torch.tensor(700.0)}


def save(folder: Path, network: nn.Module) -> None:
    groups = {"model": network.state_dict(), "optimizer": optimizer_of(network)}
    checkpoint.save(folder, groups, STATE)


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard(network: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (2,))
    for block in network.blocks:  # type: ignore[union-attr]
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(whole(actual[name]), tensor), name


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


def _save_sharded(rank: int, spec: WanTransformerSpec, folder: Path) -> None:
    network = shard(filled(spec))
    save(folder, network)
    assert checkpoint.verify(folder) == []


def test_two_ranks_save_and_one_loads(
    tiny: WanTransformerSpec, tmp_path: Path, run_ranks: Callable[..., None]
) -> None:
    folder = tmp_path / "step-00000700"
    run_ranks(_save_sharded, tiny, folder)
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
    run_ranks(_save_sharded, tiny, tmp_path / "step-00000700")
    first, _ = sorted((tmp_path / "step-00000700" / "model").iterdir())
    first.unlink()
    with pytest.raises(UserError, match=r"tensors are not whole: .*weight has 288 of 576 values, "):
        mm_models.load(mm_models.build(tiny, "cpu"), first.parent)


def _flip_a_bit(folder: Path) -> str:
    file = next((folder / "model").iterdir())
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    return f"model/{file.name} has changed since it was written"


def _remove_a_file(folder: Path) -> str:
    file = next((folder / "optimizer").iterdir())
    file.unlink()
    return f"optimizer/{file.name} is missing"


def _truncate_a_file(folder: Path) -> str:
    file = next((folder / "model").iterdir())
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:100])
    return f"model/{file.name} has 100 bytes, {size} were written"


def _change_the_state(folder: Path) -> str:
    text = (folder / "state.json").read_text()
    (folder / "state.json").write_text(text.replace("700", "701"))
    return "state.json has changed since it was written"


def _add_a_file(folder: Path) -> str:
    (folder / "model" / "other.safetensors").write_bytes(b"")
    return "model/other.safetensors is not in manifest.json"


def _remove_the_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "manifest.json is missing"


def _break_the_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text('{"files": {"state.json": 3}}')
    return "manifest.json is unreadable"


def _empty_the_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text('{"files": []}')
    return "manifest.json is unreadable"


@pytest.mark.parametrize(
    "damage",
    [
        _flip_a_bit,
        _remove_a_file,
        _truncate_a_file,
        _change_the_state,
        _add_a_file,
        _remove_the_manifest,
        _break_the_manifest,
        _empty_the_manifest,
    ],
)
def test_damage_is_found_named_and_passed_over(
    damage: Callable[[Path], str], tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    network = filled(tiny)
    for step in (99, 700):
        save(tmp_path / f"step-{step:08}", network)
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000700"
    expected = damage(tmp_path / "step-00000700")
    assert checkpoint.verify(tmp_path / "step-00000700") == [expected]
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000099"


@pytest.mark.parametrize("damage", [_remove_a_file, _truncate_a_file, _add_a_file, _break_the_manifest])
def test_damage_that_sizes_show_is_refused_by_loading(
    damage: Callable[[Path], str], tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "step-00000700"
    save(folder, filled(tiny))
    expected = damage(folder)
    with pytest.raises(UserError, match=re.escape(f"{folder}: is damaged: {expected}")):
        mm_models.load(mm_models.build(tiny, "cpu"), folder)


def _die_before_the_rename(_: int, spec: WanTransformerSpec, folder: Path) -> None:
    torch.set_num_threads(1)
    Path.rename = lambda *_: os._exit(9)  # type: ignore[assignment, method-assign]
    save(folder, filled(spec))


def test_a_process_that_dies_before_the_rename_leaves_no_checkpoint(
    tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    save(tmp_path / "step-00000099", filled(tiny))
    with pytest.raises(ProcessExitedException) as caught:
        mp.start_processes(  # type: ignore[attr-defined]
            _die_before_the_rename, args=(tiny, tmp_path / "step-00000700"), start_method="fork"
        )
    assert caught.value.exit_code == 9
    assert (tmp_path / "step-00000700.tmp" / "manifest.json").is_file()
    assert not (tmp_path / "step-00000700").exists()
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000099"
    save(tmp_path / "step-00000700", filled(tiny))
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000700"
    assert not (tmp_path / "step-00000700.tmp").exists()


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tiny: WanTransformerSpec, tmp_path: Path) -> None:
    folder = tmp_path / "step-00000700"
    save(folder, filled(tiny, seed=1))
    _flip_a_bit(folder)
    save(folder, filled(tiny, seed=2))
    network = mm_models.build(tiny, "cpu")
    mm_models.load(network, folder)
    assert checkpoint.verify(folder) == []
    assert_same(network.state_dict(), filled(tiny, seed=2).state_dict())


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_intact_checkpoint_is_never_replaced(tiny: WanTransformerSpec, tmp_path: Path) -> None:
    folder = tmp_path / "step-00000700"
    save(folder, filled(tiny, seed=1))
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="an intact checkpoint is there already"):
        save(folder, filled(tiny, seed=2))
    assert contents(tmp_path) == before


def _fail_to_replace(rank: int, spec: WanTransformerSpec, folder: Path) -> None:
    with pytest.raises(FileExistsError, match="an intact checkpoint is there already"):
        save(folder, shard(filled(spec, seed=2)))


def test_what_rank_0_can_not_write_is_an_error_on_every_rank(
    tiny: WanTransformerSpec, tmp_path: Path, run_ranks: Callable[..., None]
) -> None:
    folder = tmp_path / "step-00000700"
    save(folder, filled(tiny))
    run_ranks(_fail_to_replace, tiny, folder)
    assert checkpoint.verify(folder) == []


def _save_on_a_full_disk(_: int, spec: WanTransformerSpec, folder: Path) -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    with pytest.raises(OSError, match="File too large"):
        save(folder, filled(spec))


def test_a_disk_that_takes_no_more_is_an_os_error_and_spoils_nothing(
    tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    save(tmp_path / "step-00000099", filled(tiny))
    mp.start_processes(  # type: ignore[attr-defined]
        _save_on_a_full_disk, args=(tiny, tmp_path / "step-00000700"), start_method="fork"
    )
    assert not (tmp_path / "step-00000700").exists()
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000099"


def test_there_is_no_latest_where_nothing_was_saved(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nowhere") is None
    assert checkpoint.latest(tmp_path) is None


def test_the_manifest_lists_every_other_file(tiny: WanTransformerSpec, tmp_path: Path) -> None:
    save(tmp_path / "step-00000001", filled(tiny))
    listed = json.loads((tmp_path / "step-00000001" / "manifest.json").read_text())["files"]
    groups = {name.split("/")[0] for name in listed}
    assert groups == {"model", "optimizer", "state.json"}
    assert not dist.is_initialized()
