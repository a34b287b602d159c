"""Checkpoints: what is saved comes back bit for bit, on any number of ranks, and damage is found."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from diffusers import WanTransformer3DModel  # type: ignore[attr-defined]
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import ProcessExitedException

import mm_models
from mm_config.errors import UserError
from mm_config.specs.wan import WanTransformerSpec
from mm_models import checkpoint

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
    checkpoint.load_into(folder, "optimizer", moments)
    assert_same(moments, optimizer_of(network))


def test_files_are_plain_safetensors_and_json(tiny: WanTransformerSpec, tmp_path: Path) -> None:
    network, folder = filled(tiny), tmp_path / "step-00000001"
    save(folder, network)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    (file,) = (folder / "model").glob("*.safetensors")
    with safe_open(file, "pt") as stored:
        assert set(stored.keys()) == set(network.state_dict())


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
    checkpoint.load_into(folder, "optimizer", moments)
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


@pytest.fixture
def diffusers_folder(tiny: WanTransformerSpec, tmp_path: Path) -> Path:
    """The weights of `filled(tiny)` as diffusers saves them, in several files with an index."""
    network = WanTransformer3DModel(
        patch_size=tiny.patch_size,
        num_attention_heads=tiny.num_attention_heads,
        attention_head_dim=tiny.attention_head_dim,
        in_channels=tiny.in_channels,
        out_channels=tiny.out_channels,
        text_dim=tiny.text_dim,
        freq_dim=tiny.freq_dim,
        ffn_dim=tiny.ffn_dim,
        num_layers=tiny.num_layers,
        rope_max_seq_len=tiny.rope_max_seq_len,
    )
    network.load_state_dict(filled(tiny).state_dict())
    network.save_pretrained(tmp_path / "several", max_shard_size="60KB")
    network.save_pretrained(tmp_path / "single")
    return tmp_path


def test_diffusers_folders_load_with_one_file_or_several(
    tiny: WanTransformerSpec, diffusers_folder: Path
) -> None:
    assert len(list((diffusers_folder / "several").glob("*.safetensors"))) > 1
    for folder in ("single", "several"):
        network = mm_models.build(tiny, "cpu")
        mm_models.load(network, diffusers_folder / folder)
        assert_same(network.state_dict(), filled(tiny).state_dict())


def test_a_diffusers_folder_loads_into_shards(
    tiny: WanTransformerSpec, diffusers_folder: Path, run_ranks: Callable[..., None]
) -> None:
    run_ranks(_load_sharded, tiny, diffusers_folder / "several")


def test_values_are_cast_to_the_networks_dtype(tiny: WanTransformerSpec, diffusers_folder: Path) -> None:
    network = mm_models.build(tiny, "cpu", torch.bfloat16)
    mm_models.load(network, diffusers_folder / "single")
    assert_same(network.state_dict(), filled(tiny).bfloat16().state_dict())


def test_a_file_of_the_index_that_is_missing_is_named(
    tiny: WanTransformerSpec, diffusers_folder: Path
) -> None:
    gone = sorted((diffusers_folder / "several").glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(UserError, match=f"lists files that are missing: {gone.name}"):
        mm_models.load(mm_models.build(tiny, "cpu"), diffusers_folder / "several")


def test_weights_of_another_architecture_are_refused_by_name(
    tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "step-00000001"
    checkpoint.save(folder, {"model": {"proj_out.bias": torch.zeros(3), "head.weight": torch.zeros(1)}}, {})
    with pytest.raises(UserError) as caught:
        mm_models.load(mm_models.build(tiny, "cpu"), folder)
    message = str(caught.value)
    assert "proj_out.bias is (3,), (16,) is wanted; scale_shift_table is missing; " in message
    assert message.endswith(f"and {len(tiny.parameter_shapes()) - 9} more")
    with pytest.raises(UserError, match="holds no 'optimizer'"):
        checkpoint.load_into(folder, "optimizer", {})
    with pytest.raises(UserError, match="holds neither a checkpoint nor safetensors files"):
        mm_models.load(mm_models.build(tiny, "cpu"), tmp_path)


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
    (folder / "manifest.json").write_text("{}")
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


def test_a_checkpoint_of_the_same_step_is_replaced(tiny: WanTransformerSpec, tmp_path: Path) -> None:
    folder = tmp_path / "step-00000700"
    save(folder, filled(tiny, seed=1))
    _flip_a_bit(folder)
    save(folder, filled(tiny, seed=2))
    network = mm_models.build(tiny, "cpu")
    mm_models.load(network, folder)
    assert checkpoint.verify(folder) == []
    assert_same(network.state_dict(), filled(tiny, seed=2).state_dict())


def test_there_is_no_latest_where_nothing_was_saved(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nowhere") is None
    assert checkpoint.latest(tmp_path) is None


def test_the_manifest_lists_every_other_file(tiny: WanTransformerSpec, tmp_path: Path) -> None:
    save(tmp_path / "step-00000001", filled(tiny))
    listed = json.loads((tmp_path / "step-00000001" / "manifest.json").read_text())["files"]
    groups = {name.split("/")[0] for name in listed}
    assert groups == {"model", "optimizer", "state.json"}
    assert not dist.is_initialized()
