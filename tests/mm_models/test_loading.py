"""Published folders of safetensors: they load as they are, plain or sharded, and what is wrong is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import mm_models
from mm_config.schema.errors import UserError
from mm_config.specs.wan import WanTransformerSpec
from tests.mm_models.parity import diffusers_of


def filled(spec: WanTransformerSpec) -> nn.Module:
    network = mm_models.build(spec, "cpu")
    mm_models.initialize(network, seed=0)
    return network


def assert_loads(network: nn.Module, folder: Path, expected: nn.Module) -> None:
    """Every parameter is that of `expected`, whole or gathered from the shards."""
    mm_models.load(network, folder)
    for (name, wanted), loaded in zip(expected.named_parameters(), network.parameters(), strict=True):
        assert torch.equal(loaded.full_tensor() if isinstance(loaded, DTensor) else loaded, wanted), name


@pytest.fixture
def diffusers_folder(tiny: WanTransformerSpec, tmp_path: Path) -> Path:
    """The weights of `filled(tiny)` as diffusers saves them, in several files with an index."""
    network = diffusers_of(tiny).to_empty(device="cpu")
    network.load_state_dict(filled(tiny).state_dict())
    network.save_pretrained(tmp_path / "several", max_shard_size="60KB")
    network.save_pretrained(tmp_path / "single")
    return tmp_path


def test_diffusers_folders_load_with_one_file_or_several(
    tiny: WanTransformerSpec, diffusers_folder: Path
) -> None:
    assert len(list((diffusers_folder / "several").glob("*.safetensors"))) > 1
    for folder in ("single", "several"):
        assert_loads(mm_models.build(tiny, "cpu"), diffusers_folder / folder, filled(tiny))


def _load_sharded(rank: int, spec: WanTransformerSpec, folder: Path) -> None:
    network = mm_models.build(spec, "meta")
    fully_shard(network, mesh=init_device_mesh("cpu", (2,)))
    assert_loads(network.to_empty(device="cpu"), folder, filled(spec))


def test_a_diffusers_folder_loads_into_shards(
    tiny: WanTransformerSpec, diffusers_folder: Path, run_ranks: Callable[..., None]
) -> None:
    run_ranks(_load_sharded, tiny, diffusers_folder / "several")


def test_values_are_cast_to_the_networks_dtype(tiny: WanTransformerSpec, diffusers_folder: Path) -> None:
    narrow, expected = mm_models.build(tiny, "cpu", torch.bfloat16), filled(tiny)
    for name, parameter in expected.named_parameters():
        parameter.data = parameter.data.to(narrow.get_parameter(name).dtype)
    assert_loads(narrow, diffusers_folder / "single", expected)


def test_the_unused_norm_of_published_image_branches_is_passed_over(
    tiny: WanTransformerSpec, tmp_path: Path
) -> None:
    spec = attrs.evolve(tiny, image_dim=6)
    expected = filled(spec)
    unused = {f"blocks.{index}.attn2.norm_added_q.weight": torch.ones(36) for index in range(2)}
    save_file({**expected.state_dict(), **unused}, tmp_path / "weights.safetensors")
    assert_loads(mm_models.build(spec, "cpu"), tmp_path, expected)
    stranger = {"blocks.0.attn2.norm_added_v.weight": torch.ones(36)}
    save_file({**expected.state_dict(), **stranger}, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=r"1 tensor is not wanted: blocks\.0\.attn2\.norm_added_v\.weight"):
        mm_models.load(mm_models.build(spec, "cpu"), tmp_path)


def test_a_file_of_the_index_that_is_missing_is_named(
    tiny: WanTransformerSpec, diffusers_folder: Path
) -> None:
    gone = sorted((diffusers_folder / "several").glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(UserError, match=f"lists files that are missing: {gone.name}"):
        mm_models.load(mm_models.build(tiny, "cpu"), diffusers_folder / "several")


def test_tensors_that_two_files_hold_are_refused(tiny: WanTransformerSpec, diffusers_folder: Path) -> None:
    (file,) = (diffusers_folder / "single").glob("*.safetensors")
    shutil.copy(file, file.with_suffix(".fp16.safetensors"))
    with pytest.raises(UserError, match=rf"no index .*, or name one of .*{file.stem}\.fp16\.safetensors"):
        mm_models.load(mm_models.build(tiny, "cpu"), diffusers_folder / "single")
    names = dict.fromkeys(filled(tiny).state_dict(), file.name)
    listed = {**names, "proj_out.bias": file.with_suffix(".fp16.safetensors").name}
    index = file.with_suffix(".safetensors.index.json")
    index.write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(
        UserError, match=rf"fp16\.safetensors: .* is in {file.name} too|{file.name}: .* is in"
    ):
        mm_models.load(mm_models.build(tiny, "cpu"), diffusers_folder / "single")


def test_a_download_that_was_cut_short_is_named(tiny: WanTransformerSpec, diffusers_folder: Path) -> None:
    folder = diffusers_folder / "several"
    cut, emptied, *_ = sorted(folder.glob("*.safetensors"))
    cut.write_bytes(cut.read_bytes()[:-8])
    emptied.write_bytes(b"")
    with pytest.raises(UserError) as caught:
        mm_models.load(mm_models.build(tiny, "cpu"), folder)
    assert [problem.path for problem in caught.value.problems] == [str(cut), str(emptied)]
    assert all(problem.message.startswith("can't be read: ") for problem in caught.value.problems)
    (index,) = folder.glob("*.index.json")
    index.write_text("<html>")
    with pytest.raises(UserError, match=r"index\.json: is no index of safetensors files: it is an HTML page"):
        mm_models.load(mm_models.build(tiny, "cpu"), folder)
