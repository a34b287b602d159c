"""Weights of one codebase become those of another without a changed bit."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from diffusers import WanTransformer3DModel  # type: ignore[attr-defined]
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

import mm_models
from mm_config.schema.errors import UserError
from mm_models import checkpoint
from mm_models.wan.names import MINDSPEED, WAN
from mm_models.weights.converting import convert
from mm_models.weights.inspecting import inspect_weights
from mm_models.weights.opening import open_weights
from mm_models.weights.safetensors_files import read_files
from mm_models.weights.tensors import Region, StoredTensor, in_memory
from tests.mm_models.weight_files import SPECS, T2V, mindspeed_stages, values, write_diffusers, write_wan


@pytest.fixture(autouse=True)
def without_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusers opens networks that keep parts in float32 with accelerate alone; here all is float32."""
    monkeypatch.setattr(WanTransformer3DModel, "_keep_in_fp32_modules", None)


def assert_holds(path: Path, expected: dict[str, Tensor], kind: str) -> None:
    weights = open_weights(path)
    assert weights.kind == kind
    assert set(weights.tensors) == set(expected)
    for name, value in expected.items():
        stored = weights.tensors[name].read()
        assert stored.dtype == value.dtype
        assert torch.equal(stored, value), name


@pytest.mark.parametrize("conditioning", SPECS)
@pytest.mark.parametrize("shard", ["10GB", "60KB"])
def test_the_way_through_every_kind_ends_where_it_began(
    conditioning: str, shard: str, tmp_path: Path
) -> None:
    spec = SPECS[conditioning]
    expected = write_diffusers(tmp_path / "diffusers", spec, shard)
    source = tmp_path / "diffusers"
    shard_bytes = 60_000 if shard == "60KB" else 10**10
    for number, kind in enumerate(("wan", "mindspeed", "dcp", "diffusers")):
        out = tmp_path / f"{number}-{kind}"
        convert(source, out, kind, shard_bytes=shard_bytes, spec=spec)
        assert_holds(out, expected, kind)
        source = out
    digests = {inspect_weights(path, spec).digest for path in tmp_path.iterdir()}
    assert len(digests) == 1
    opened = WanTransformer3DModel.from_pretrained(source)
    theirs = json.loads((tmp_path / "diffusers" / "config.json").read_text())
    ours = json.loads((source / "config.json").read_text())
    assert ours == {name: value for name, value in theirs.items() if name != "_diffusers_version"}
    for name, value in opened.state_dict().items():
        assert torch.equal(value, expected[name]), name
    if shard == "60KB":
        (index,) = source.glob("*.index.json")
        assert len(set(json.loads(index.read_text())["weight_map"].values())) > 2
        assert all(file.stat().st_size < 80_000 for file in source.glob("*.safetensors"))


def test_diffusers_finds_every_tensor_of_a_written_folder(tmp_path: Path) -> None:
    write_wan(tmp_path / "wan" / "w.safetensors", SPECS["i2v"])
    convert(tmp_path / "wan", tmp_path / "out", spec=SPECS["i2v"])
    opened: Any = WanTransformer3DModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    _, report = opened
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_our_checkpoint_loads_and_is_intact(tmp_path: Path) -> None:
    write_wan(tmp_path / "w.safetensors", T2V)
    convert(tmp_path / "w.safetensors", tmp_path / "step-00000001", "dcp", shard_bytes=60_000, spec=T2V)
    assert checkpoint.verify(tmp_path / "step-00000001") == []
    network = mm_models.build(T2V, "cpu")
    mm_models.load(network, tmp_path / "step-00000001")
    for name, value in network.state_dict().items():
        assert torch.equal(value, values(T2V)[name])


def test_a_checkpoint_of_ours_tells_its_own_heads(tmp_path: Path) -> None:
    write_diffusers(tmp_path / "diffusers", T2V)
    convert(tmp_path / "diffusers", tmp_path / "checkpoint", "dcp")
    convert(tmp_path / "checkpoint", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["num_attention_heads"] == 3


def test_the_original_codes_files_are_read_as_safetensors_and_as_pth(tmp_path: Path) -> None:
    write_wan(tmp_path / "a.safetensors", T2V)
    write_wan(tmp_path / "folder" / "a.pth", T2V)
    for path in (tmp_path / "a.safetensors", tmp_path / "folder" / "a.pth", tmp_path / "folder"):
        assert_holds(path, values(T2V), "wan")


def test_written_files_bear_the_names_of_their_dialect(tmp_path: Path) -> None:
    write_diffusers(tmp_path / "d", T2V)
    convert(tmp_path / "d", tmp_path / "wan", "wan")
    with safe_open(tmp_path / "wan" / "diffusion_pytorch_model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(map(WAN.theirs, T2V.parameter_shapes()))
    config = json.loads((tmp_path / "wan" / "config.json").read_text())
    assert (config["_class_name"], config["model_type"], config["num_heads"]) == ("WanModel", "t2v", 3)
    convert(tmp_path / "d", tmp_path / "mindspeed", "mindspeed")
    file = tmp_path / "mindspeed" / "release" / "mp_rank_00" / "model_optim_rng.pt"
    model = torch.load(file, weights_only=True)["model"]
    assert set(model) == set(map(MINDSPEED.theirs, T2V.parameter_shapes()))
    assert (tmp_path / "mindspeed" / "latest_checkpointed_iteration.txt").read_text() == "release"


def write_stages(folder: Path, parts: Iterable[tuple[str, Any]]) -> None:
    for rank, payload in parts:
        (folder / "release" / rank).mkdir(parents=True, exist_ok=True)
        torch.save(payload, folder / "release" / rank / "model_optim_rng.pt")


@pytest.mark.parametrize("blocks", [[3], [1, 1, 1], [1, 2], [2, 1]])
@pytest.mark.parametrize("prefix", ["", "predictor."])
def test_mindspeeds_pipeline_stages_are_joined(blocks: list[int], prefix: str, tmp_path: Path) -> None:
    stages = mindspeed_stages(T2V, blocks)
    names = ["mp_rank_00"] if len(blocks) == 1 else [f"mp_rank_00_{stage:03}" for stage in range(len(blocks))]
    named = [{prefix + name: value for name, value in stage.items()} for stage in stages]
    write_stages(tmp_path, ((name, {"model": part}) for name, part in zip(names, named, strict=True)))
    for path in (tmp_path, tmp_path / "release"):
        assert_holds(path, values(T2V), "mindspeed")


def test_virtual_stages_come_in_their_order(tmp_path: Path) -> None:
    first, second, third = mindspeed_stages(T2V, [1, 1, 1])
    files = {"mp_rank_00_000": {"model0": first, "model1": third}, "mp_rank_00_001": {"model0": second}}
    write_stages(tmp_path, files.items())
    assert_holds(tmp_path, values(T2V), "mindspeed")


def test_stages_numbered_on_from_each_other_are_joined(tmp_path: Path) -> None:
    named = {MINDSPEED.theirs(name): value for name, value in values(T2V).items()}
    late = {name: value for name, value in named.items() if name.startswith(("blocks.2.", "head."))}
    early = {name: value for name, value in named.items() if name not in late}
    write_stages(tmp_path, [("mp_rank_00_000", {"model": early}), ("mp_rank_00_001", {"model": late})])
    assert_holds(tmp_path, values(T2V), "mindspeed")


def test_a_missing_stage_and_tensor_parallel_parts_are_refused(tmp_path: Path) -> None:
    first, _, third = mindspeed_stages(T2V, [1, 1, 1])
    write_stages(tmp_path, [("mp_rank_00_000", {"model": first}), ("mp_rank_00_002", {"model": third})])
    with pytest.raises(UserError, match="has no part of pipeline stage 1"):
        open_weights(tmp_path)
    write_stages(tmp_path, [("mp_rank_01_000", {"model": first})])
    with pytest.raises(UserError, match="tensor-parallel parts of Wan are not supported"):
        open_weights(tmp_path)


def test_torch_dcp_is_read_with_what_lies_beside_the_network(tmp_path: Path) -> None:
    model = {"predictor." + MINDSPEED.theirs(name): value for name, value in values(T2V).items()}
    moments = {f"exp_avg.{name}": value for name, value in model.items()}
    state = {"model": model, "optimizer": moments, "iteration": 700}
    save_distributed(state, checkpoint_id=tmp_path / "iter_0000700", no_dist=True)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("700\n")
    assert_holds(tmp_path, values(T2V), "mindspeed")
    weights = open_weights(tmp_path)
    assert len(weights.left_out) == len(moments) + 1
    assert "iteration" in weights.left_out
    convert(tmp_path, tmp_path / "out", spec=T2V)
    assert_holds(tmp_path / "out", values(T2V), "diffusers")


def test_a_dtype_is_cast_only_when_asked_and_never_beyond_its_range(tmp_path: Path) -> None:
    write_diffusers(tmp_path / "d", T2V)
    convert(tmp_path / "d", tmp_path / "narrow", dtype=torch.bfloat16)
    expected = {name: value.bfloat16() for name, value in values(T2V).items()}
    assert_holds(tmp_path / "narrow", expected, "diffusers")
    convert(tmp_path / "narrow", tmp_path / "same", "wan")
    assert_holds(tmp_path / "same", expected, "wan")
    large = {name: value * 1e6 for name, value in values(T2V).items()}
    torch.save(large, tmp_path / "large.pt")
    with pytest.raises(UserError, match=r"holds values beyond 65504, the largest of torch\.float16"):
        convert(tmp_path / "large.pt", tmp_path / "large", dtype=torch.float16, spec=T2V)
    assert not (tmp_path / "large").exists()
    assert not (tmp_path / "large.tmp").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_diffusers(tmp_path / "d", T2V)
    (tmp_path / "taken").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("taken", "link", "d"):
        with pytest.raises(UserError, match="exists already; nothing is overwritten"):
            convert(tmp_path / "d", tmp_path / name)
    (tmp_path / "out.tmp").mkdir()
    (tmp_path / "out.tmp" / "kept").touch()
    convert(tmp_path / "d", tmp_path / "out")
    assert (tmp_path / "out").is_dir() and (tmp_path / "out.tmp" / "kept").exists()
    with pytest.raises(UserError, match=r"the folder .* does not exist"):
        convert(tmp_path / "d", tmp_path / "a" / "b")


def part(stored: StoredTensor, region: Region, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A part of a tensor, copied into every other row of a larger one."""
    sizes = [one.stop - one.start for one in region]
    out = torch.full((2 * sizes[0], *sizes[1:]), -1, dtype=dtype or stored.dtype)
    stored.copy(region, out[::2])
    assert (out[1::2] == -1).all()
    return out[::2]


def test_parts_of_a_tensor_in_pieces_are_read_right() -> None:
    whole = torch.arange(35).reshape(5, 7)
    corners = [(0, 0, 2, 3), (0, 3, 2, 4), (2, 0, 3, 3), (2, 3, 3, 4)]
    pieces = tuple(
        attrs.evolve(
            in_memory(whole[row : row + height, column : column + width]).pieces[0], offsets=(row, column)
        )
        for row, column, height, width in corners
    )
    stored = StoredTensor((5, 7), whole.dtype, pieces)
    assert stored.is_whole
    assert torch.equal(stored.read(), whole)
    for top in range(5):
        for left in range(7):
            region = (slice(top, 5), slice(left, min(left + 3, 7)))
            assert torch.equal(part(stored, region), whole[region])


def test_empty_shards_of_several_ranks_are_passed_over(tmp_path: Path) -> None:
    tensors = values(T2V)
    empty = {"scale_shift_table": torch.empty(0, 2, 36)}
    offsets = {"DCP_SHARDING_INFO": json.dumps({"scale_shift_table": {"saved_offsets": [1, 0, 0]}})}
    for rank in (1, 2):
        save_file(empty, tmp_path / f"{rank}.safetensors", offsets)
    save_file(tensors, tmp_path / "0.safetensors")
    read = read_files(sorted(tmp_path.glob("*.safetensors")))
    assert torch.equal(read["scale_shift_table"].read(), tensors["scale_shift_table"])


def test_any_part_of_a_safetensors_file_is_read_right(tmp_path: Path) -> None:
    tensors = values(T2V, torch.bfloat16)
    save_file(tensors, tmp_path / "w.safetensors")
    read = read_files([tmp_path / "w.safetensors"])
    for name in ("proj_out.weight", "patch_embedding.weight"):
        for first in (slice(0, 3), slice(5, 16), slice(16, 16)):
            rest = [slice(0, size) for size in tensors[name].shape[1:]]
            columns = [slice(1, 3), *rest[1:]]
            for region in ((first, *rest), (first, *columns)):
                expected = tensors[name][region]
                assert torch.equal(part(read[name], region), expected)
                assert torch.equal(part(read[name], region, torch.float32), expected.float())
                straight = torch.full_like(expected, torch.nan)
                read[name].copy(region, straight)
                assert torch.equal(straight, expected)


def test_a_file_that_is_cut_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    save_file(values(T2V), tmp_path / "w.safetensors")
    read = read_files([tmp_path / "w.safetensors"])
    with (tmp_path / "w.safetensors").open("rb+") as file:
        file.truncate(20_000)
    with pytest.raises(
        UserError, match=r"w\.safetensors: .* can't be read: the file was cut short meanwhile"
    ):
        for tensor in read.values():
            tensor.read()
