"""Files of weights as others name and pack them: variants, `.bin`, names of wrappers, 8-bit floats."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import mm_models
from mm_config.schema.errors import UserError
from mm_models.weights.converting import convert
from mm_models.weights.inspecting import inspect_weights
from mm_models.weights.quantised import dequantised
from mm_models.weights.tensors import in_memory
from tests.mm_models.parity import diffusers_of
from tests.mm_models.weight_files import T2V, values

BLOCK = "blocks.0.ffn.net.0.proj"
VALUES = values(T2V)


def loaded(path: Path) -> dict[str, Tensor]:
    network = mm_models.build(T2V, "cpu")
    mm_models.load(network, path)
    return dict(network.named_parameters())


def assert_loads(path: Path, wanted: dict[str, Tensor] = VALUES) -> None:
    found = loaded(path)
    assert [name for name, value in wanted.items() if not torch.equal(found[name], value)] == []


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        loaded(path)
    (problem,) = caught.value.problems
    return problem.message


@pytest.mark.parametrize("shard", ["10GB", "20KB"])
def test_a_variant_of_diffusers_is_read(shard: str, tmp_path: Path) -> None:
    network = diffusers_of(T2V).to_empty(device="cpu")
    network.load_state_dict(VALUES)
    network.save_pretrained(tmp_path / "v", variant="fp16", max_shard_size=shard)
    assert_loads(tmp_path / "v")
    names = [path.name for path in (tmp_path / "v").iterdir()]
    index = "diffusion_pytorch_model.safetensors.index.fp16.json"
    assert (index in names) == (shard == "20KB")
    if shard == "20KB":
        assert_loads(tmp_path / "v" / index)


def test_two_variants_in_one_folder_are_not_chosen_from(tmp_path: Path) -> None:
    network = diffusers_of(T2V).to_empty(device="cpu")
    network.load_state_dict(VALUES)
    network.save_pretrained(tmp_path / "both", variant="fp16")
    network.save_pretrained(tmp_path / "both")
    assert "diffusion_pytorch_model.fp16.safetensors, diffusion_pytorch_model.saf" in refusal(
        tmp_path / "both"
    )
    assert_loads(tmp_path / "both" / "diffusion_pytorch_model.fp16.safetensors")
    network.save_pretrained(tmp_path / "mixed", variant="fp16")
    network.save_pretrained(tmp_path / "mixed", max_shard_size="20KB")
    assert refusal(tmp_path / "mixed") == (
        "holds diffusion_pytorch_model.safetensors.index.json and, beside its files, "
        "diffusion_pytorch_model.fp16.safetensors, so nothing tells which are meant; name one of them"
    )


def test_bin_files_are_read_alone_and_by_their_index(tmp_path: Path) -> None:
    one, old, several = tmp_path / "one", tmp_path / "old", tmp_path / "several"
    for folder in (one, old, several):
        folder.mkdir()
    torch.save(VALUES, one / "pytorch_model.bin")
    torch.save(VALUES, old / "diffusion_pytorch_model.bin", _use_new_zipfile_serialization=False)
    places = {name: f"pytorch_model-{1 + index % 2}-of-2.bin" for index, name in enumerate(VALUES)}
    for file in set(places.values()):
        torch.save({name: value for name, value in VALUES.items() if places[name] == file}, several / file)
    (several / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    for folder in (one, old, several, several / "pytorch_model.bin.index.json"):
        assert_loads(folder)
    (several / "pytorch_model-2-of-2.bin").unlink()
    assert refusal(several) == (
        "lists files that are missing: pytorch_model-2-of-2.bin; the download is not complete"
    )


def test_a_bin_file_that_would_have_to_be_executed_is_refused(tmp_path: Path) -> None:
    torch.save({"a": Path("x")}, tmp_path / "pytorch_model.bin")
    assert "holds Python objects that are never loaded: pathlib" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("place", "put"),
    [
        ("patch_embedding", "_orig_mod.patch_embedding"),
        ("blocks.1", "blocks.1._orig_mod"),
        ("blocks.0", "blocks.0._checkpoint_wrapped_module"),
        ("blocks.2", "_fsdp_wrapped_module.blocks.2._fsdp_wrapped_module"),
        ("", "module."),
        ("", "model.diffusion_model."),
        ("", "module._orig_mod.model.diffusion_model."),
    ],
)
def test_what_wrappers_put_into_names_is_taken_out(place: str, put: str, tmp_path: Path) -> None:
    save_file(
        {name.replace(place, put, 1): value for name, value in VALUES.items()}, tmp_path / "w.safetensors"
    )
    assert_loads(tmp_path / "w.safetensors")


def test_a_wrapped_and_a_plain_copy_of_one_name_are_refused(tmp_path: Path) -> None:
    save_file({**VALUES, "_orig_mod.proj_out.bias": VALUES["proj_out.bias"] + 1}, tmp_path / "w.safetensors")
    assert "holds proj_out.bias under two names" in refusal(tmp_path / "w.safetensors")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_plain_8_bit_floats_are_read_as_they_are_and_told(
    dtype: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = {name: value.to(dtype) if value.ndim == 2 else value for name, value in VALUES.items()}
    save_file(stored, tmp_path / "w.safetensors")
    assert_loads(tmp_path / "w.safetensors", {name: value.float() for name, value in stored.items()})
    count = sum(value.ndim == 2 for value in VALUES.values())
    told = f"{count} tensors of {str(dtype)[6:]} without scales, taken as they are"
    assert f"w.safetensors: {told}\n" in capsys.readouterr().out
    assert f"quantised     {told}" in list(inspect_weights(tmp_path / "w.safetensors").lines())


@pytest.mark.parametrize("kind", ["scalar", "row", "column", "block"])
def test_scales_are_carried_out_by_what_their_shape_says(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, columns = VALUES[f"{BLOCK}.weight"].shape
    scale, name = {
        "scalar": (torch.tensor(0.5), "scale_weight"),
        "row": (torch.linspace(1, 2, rows), "weight_scale"),
        "column": (torch.linspace(1, 2, rows)[:, None].bfloat16(), "weight_scale"),
        "block": (torch.tensor([[3.0]]), "weight_scale_inv"),
    }[kind]
    weight = VALUES[f"{BLOCK}.weight"].to(torch.float8_e4m3fn)
    extra = {f"{BLOCK}.weight": weight, f"{BLOCK}.{name}": scale, f"{BLOCK}.input_scale": torch.ones(1)}
    save_file({**VALUES, **extra}, tmp_path / "w.safetensors")
    factors = scale.float().reshape(-1, 1).expand(rows, columns)
    assert_loads(tmp_path / "w.safetensors", {**VALUES, f"{BLOCK}.weight": weight.float() * factors})
    assert "w.safetensors: 1 tensor of float8_e4m3fn, multiplied by their scales" in capsys.readouterr().out
    convert(tmp_path / "w.safetensors", tmp_path / "out", dtype=torch.bfloat16, spec=T2V)
    written = load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(written[f"{BLOCK}.weight"], (weight.float() * factors).bfloat16())


def test_blocks_of_128_have_a_scale_each_also_where_only_a_part_is_read() -> None:
    weight = torch.randn(300, 200).to(torch.float8_e4m3fn)
    scale = torch.rand(3, 2) + 0.5
    found, rest = dequantised(
        {"a.weight": in_memory(weight), "a.weight_scale_inv": in_memory(scale)}, Path("x")
    )
    expected = torch.stack(
        [
            torch.stack([weight[i, j].float() * scale[i // 128, j // 128] for j in range(200)])
            for i in range(300)
        ]
    )
    assert rest == ("a.weight_scale_inv",)
    assert torch.equal(found["a.weight"].read(), expected)
    part = torch.empty(150, 90)
    found["a.weight"].copy((slice(120, 270), slice(100, 190)), part)
    assert torch.equal(part, expected[120:270, 100:190])


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (
            {f"{BLOCK}.scale_weight": torch.ones(7)},
            f"{BLOCK}.scale_weight is (7,) of float32: no known scale",
        ),
        ({f"{BLOCK}.weight_scale": torch.ones(1, dtype=torch.uint8)}, "is (1,) of uint8: no known scale"),
        ({"scaled_fp8": torch.ones(0).to(torch.float8_e5m2)}, "1 tensors of 8-bit floats lack the scales"),
        (
            {f"{BLOCK}.weight_scale": torch.ones(1), "proj_out.weight_scale": torch.ones(1)},
            "is no tensor of 8",
        ),
    ],
)
def test_scales_that_are_not_understood_are_refused(
    extra: dict[str, Tensor], problem: str, tmp_path: Path
) -> None:
    weight = VALUES[f"{BLOCK}.weight"].to(torch.float8_e4m3fn)
    save_file({**VALUES, f"{BLOCK}.weight": weight, **extra}, tmp_path / "w.safetensors")
    assert problem in refusal(tmp_path / "w.safetensors")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scales_that_are_not_finite_are_refused_when_they_are_read(value: float, tmp_path: Path) -> None:
    weight = VALUES[f"{BLOCK}.weight"].to(torch.float8_e4m3fn)
    scale = torch.ones(len(weight))
    scale[3] = value
    extra = {f"{BLOCK}.weight": weight, f"{BLOCK}.weight_scale": scale}
    save_file({**VALUES, **extra}, tmp_path / "w.safetensors")
    for read in (loaded, inspect_weights):
        with pytest.raises(UserError, match=rf"w\.safetensors: {BLOCK}\.weight_scale is not finite"):
            read(tmp_path / "w.safetensors")
