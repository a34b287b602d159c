"""Weights of every kind go straight into shards, and each rank reads its own part alone."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import mm_models
from mm_config.schema.errors import UserError
from mm_models import checkpoint
from mm_models.loading import load_group
from mm_models.networks import copy_whole
from mm_models.wan.names import MINDSPEED
from mm_models.weights import filling, safetensors_files
from mm_models.weights.converting import convert
from mm_models.weights.filling import fill
from mm_models.weights.opening import open_weights
from tests.mm_models.weight_files import T2V, mindspeed_stages, values, write_diffusers, write_wan


def write_all(folder: Path) -> dict[str, Path]:
    """The same weights in every layout that is read."""
    write_diffusers(folder / "diffusers", T2V, "60KB")
    write_wan(folder / "wan.safetensors", T2V)
    write_wan(folder / "wan.pth", T2V)
    convert(folder / "diffusers", folder / "dcp", "dcp", shard_bytes=60_000)
    for stage, part in enumerate(mindspeed_stages(T2V, [2, 1])):
        place = folder / "stages" / "release" / f"mp_rank_00_{stage:03}"
        place.mkdir(parents=True)
        torch.save({"model": part}, place / "model_optim_rng.pt")
    named = {MINDSPEED.theirs(name): value for name, value in values(T2V).items()}
    save_distributed({"model": named}, checkpoint_id=folder / "torch_dcp", no_dist=True)
    return {path.name: path for path in folder.iterdir()}


def sharded() -> nn.Module:
    network = mm_models.build(T2V, "meta")
    mesh = init_device_mesh("cpu", (2,))
    for block in network.blocks:  # type: ignore[union-attr]
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network.to_empty(device="cpu")


def assert_filled(network: nn.Module) -> None:
    expected = values(T2V)
    for name, value in network.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        assert torch.equal(whole, expected[name].to(whole.dtype)), name


def _load_all(rank: int, paths: dict[str, Path]) -> None:
    for path in paths.values():
        network = sharded()
        mm_models.load(network, path)
        assert_filled(network)


def test_every_kind_loads_into_shards(tmp_path: Path, run_ranks: Callable[..., None]) -> None:
    (tmp_path / "all").mkdir()
    paths = write_all(tmp_path / "all")
    assert len(paths) == 6
    run_ranks(_load_all, paths)


def test_every_kind_loads_whole_and_is_cast(tmp_path: Path) -> None:
    for path in write_all(tmp_path).values():
        network = mm_models.build(T2V, "cpu", torch.bfloat16)
        mm_models.load(network, path)
        assert network.get_parameter("proj_out.weight").dtype is torch.bfloat16
        assert_filled(network)


def read_bytes() -> int:
    """What this process has asked of all files so far."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


def _load_counting(rank: int, folder: Path) -> None:
    network = sharded()
    headers = read_bytes()
    open_weights(folder)
    before = read_bytes()
    headers = before - headers
    mm_models.load(network, folder)
    local = [value.to_local().nbytes for value in network.state_dict().values()]  # type: ignore[union-attr]
    assert sum(local) < 0.52 * 4 * T2V.parameter_count()
    assert sum(local) <= read_bytes() - before <= sum(local) + headers + 1000
    assert_filled(network)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="Linux counts what a process reads")
def test_a_rank_reads_as_many_bytes_as_it_holds(tmp_path: Path, run_ranks: Callable[..., None]) -> None:
    write_diffusers(tmp_path / "d", T2V)
    run_ranks(_load_counting, tmp_path / "d")


def _load_columns(rank: int, path: Path, dtype: torch.dtype) -> None:
    mesh = init_device_mesh("cpu", (2,))
    columns = {
        name: distribute_tensor(torch.full(shape, torch.nan, dtype=dtype), mesh, [Shard(len(shape) - 1)])
        for name, shape in T2V.parameter_shapes().items()
    }
    fill(columns, open_weights(path).tensors, path)
    for name, value in values(T2V, dtype).items():
        assert torch.equal(columns[name].full_tensor(), value), name


@pytest.mark.parametrize("buffer_bytes", [16, 1000, 2**24])
def test_shards_of_columns_and_casts_pass_through_a_small_buffer(
    buffer_bytes: int, tmp_path: Path, run_ranks: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_files, "BUFFER_BYTES", buffer_bytes)
    write_diffusers(tmp_path / "d", T2V)
    run_ranks(_load_columns, tmp_path / "d", torch.bfloat16)


def _save_sharded(rank: int, folder: Path) -> None:
    state, expected = sharded().state_dict(), values(T2V)
    for name, value in state.items():
        copy_whole(expected[name], value)
    checkpoint.save(folder / "step-00000001", {"model": state}, {})
    named = {"predictor." + MINDSPEED.theirs(name): value for name, value in state.items()}
    save_distributed(named, checkpoint_id=folder / "dcp")


def test_checkpoints_that_two_ranks_wrote_are_joined(tmp_path: Path, run_ranks: Callable[..., None]) -> None:
    run_ranks(_save_sharded, tmp_path)
    for name, kind in {"step-00000001": "dcp", "dcp": "mindspeed"}.items():
        weights = open_weights(tmp_path / name)
        assert weights.kind == kind
        assert max(len(tensor.pieces) for tensor in weights.tensors.values()) == 2
        network = mm_models.build(T2V, "cpu")
        mm_models.load(network, tmp_path / name)
        assert_filled(network)


def test_large_loads_show_progress_by_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wan(tmp_path / "w.safetensors", T2V)
    mm_models.load(mm_models.build(T2V, "cpu"), tmp_path / "w.safetensors")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(filling, "SHOWN_BYTES", 4 * T2V.parameter_count())
    mm_models.load(mm_models.build(T2V, "cpu"), tmp_path / "w.safetensors")
    count = len(T2V.parameter_shapes())
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(f"load w.safetensors  tensor {count}/{count}  ")
    assert math.isclose(len(lines), 10, abs_tol=2)
    monkeypatch.setenv("RANK", "1")
    mm_models.load(mm_models.build(T2V, "cpu"), tmp_path / "w.safetensors")
    assert capsys.readouterr().out == ""


def test_numbers_without_axes_and_whole_numbers_come_back(tmp_path: Path) -> None:
    kept = {"steps": torch.tensor(7), "scale": torch.tensor(0.5), "empty": torch.zeros(0, 3)}
    checkpoint.save(tmp_path / "step-00000001", {"model": kept}, {})
    found = {name: torch.zeros_like(value) for name, value in kept.items()}
    load_group(tmp_path / "step-00000001", "model", found)
    assert all(torch.equal(found[name], value) for name, value in kept.items())
    found["scale"] = torch.tensor(0)
    kept["scale"] = torch.tensor(3, dtype=torch.int8)
    checkpoint.save(tmp_path / "step-00000002", {"model": kept}, {})
    with pytest.raises(UserError, match=r"1 tensor is of a dtype that is not loaded .*: scale is int8"):
        load_group(tmp_path / "step-00000002", "model", found)
