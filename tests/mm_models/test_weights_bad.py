"""Weights that are incomplete or another network's: one clear error each, and nothing is written."""

import json
import math
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import save_file

import mm_models
from mm_config.families import wan21, wan22
from mm_config.schema.errors import UserError
from mm_models.weights.converting import convert
from mm_models.weights.differences import compare
from mm_models.weights.inspecting import inspect_weights
from mm_models.weights.opening import open_weights
from mm_models.weights.tensors import Piece, StoredTensor
from tests.mm_models.lora_files import adapter_of, halves, write
from tests.mm_models.refused_weights import does_not_fit, refused
from tests.mm_models.weight_files import SPECS, T2V, values, write_diffusers


def test_missing_extra_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    tensors = values(T2V)
    tensors["blocks.1.norm2.bias"] = torch.ones(37)
    tensors["blocks.1.attn3.to_q.weight"] = torch.ones(2)
    del tensors["proj_out.bias"], tensors["blocks.0.attn1.to_q.weight"]
    save_file(tensors, tmp_path / "w.safetensors")
    assert does_not_fit(tmp_path / "w.safetensors") == [
        "2 tensors are missing: blocks.0.attn1.to_q.weight, proj_out.bias",
        "1 tensor is not wanted: blocks.1.attn3.to_q.weight",
        "1 tensor is of another shape: blocks.1.norm2.bias is (37,), (36,) is wanted",
    ]


def test_the_first_ten_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    tensors = {name: value for name, value in values(T2V).items() if not name.startswith("blocks.2.")}
    save_file(tensors, tmp_path / "w.safetensors")
    missing, cause = does_not_fit(tmp_path / "w.safetensors")
    names = [name for name in T2V.parameter_shapes() if name.startswith("blocks.2.")]
    assert missing == f"{len(names)} tensors are missing: {', '.join(names[:10])}, and {len(names) - 10} more"
    assert cause == "likely cause: these are weights of another network: num_layers 2 instead of 3"


def test_one_part_of_several_files_is_called_that(tmp_path: Path) -> None:
    first = {name: value for name, value in values(T2V).items() if name.startswith("blocks.0.")}
    save_file(first, tmp_path / "w.safetensors")
    assert does_not_fit(tmp_path / "w.safetensors")[-1] == (
        "likely cause: nothing of 2 blocks from 1 to 2 is there: this is one of several files"
    )


def test_another_familys_file_is_told_by_its_name() -> None:
    def stored(spec: attrs.AttrsInstance) -> dict[str, StoredTensor]:
        def never(*_: object) -> None:
            raise AssertionError("headers alone are compared")

        return {
            name: StoredTensor(shape, torch.bfloat16, (Piece((0,) * len(shape), shape, never),))
            for name, shape in spec.parameter_shapes().items()  # type: ignore[attr-defined]
        }

    small, large = wan22.TI2V_5B.model, wan22.T2V_A14B.model
    found = compare(stored(small), large.parameter_shapes())  # type: ignore[arg-type]
    assert len(found.misshapen) > 10
    assert found.cause is not None
    assert found.cause.startswith(
        "these are weights of wan22.TI2V_5B, the spec is wan21.T2V_14B (or wan22.T2V_A14B"
    )
    image = compare(stored(large), wan21.MODEL_I2V_14B.parameter_shapes())  # type: ignore[arg-type]
    assert image.cause is not None
    assert "the spec is wan21.I2V_14B_480P (or wan21.I2V_14B_720P)" in image.cause


def test_integers_that_mean_nothing_without_scales_are_refused(tmp_path: Path) -> None:
    tensors = values(T2V)
    tensors["proj_out.bias"] = tensors["proj_out.bias"].to(torch.int8)
    save_file(tensors, tmp_path / "w.safetensors")
    assert does_not_fit(tmp_path / "w.safetensors") == [
        "1 tensor is of a dtype that is not loaded (allowed: float32, bfloat16, float16, float8): "
        "proj_out.bias is int8"
    ]


def test_shards_of_a_checkpoint_that_do_not_make_whole_tensors(tmp_path: Path) -> None:
    half = {"proj_out.weight": values(T2V)["proj_out.weight"][:8]}
    rest = {name: value for name, value in values(T2V).items() if name != "proj_out.weight"}
    offsets = {"proj_out.weight": {"saved_offsets": [8, 0]}}
    save_file(half, tmp_path / "half.safetensors", {"DCP_SHARDING_INFO": json.dumps(offsets)})
    save_file(rest, tmp_path / "rest.safetensors")
    index = dict.fromkeys(rest, "rest.safetensors") | {"proj_out.weight": "half.safetensors"}
    (tmp_path / "w.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    whole = math.prod(T2V.parameter_shapes()["proj_out.weight"])
    assert does_not_fit(tmp_path) == [
        f"1 tensor is not whole: proj_out.weight has {whole // 2} of {whole} values"
    ]


@pytest.mark.parametrize(
    ("prefix", "down", "up"), [("transformer.", "lora_A", "lora_B"), ("", "lora_down", "lora_up")]
)
def test_an_adapter_given_as_a_networks_weights_is_called_one(
    prefix: str, down: str, up: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "lora.safetensors", halves(adapter_of(), prefix, down, up))
    assert refused(file) == (
        "is an adapter (LoRA), not a network's weights; it belongs in spec.loras of a generation, "
        "or in spec.lora.start_from of a training"
    )


def test_weights_that_are_not_whole_have_no_digest(tmp_path: Path) -> None:
    # A whole tensor of this shape would be as large as a petabyte: it is not even made.
    sharding = json.dumps({"proj_out.weight": {"saved_offsets": [2**40, 0]}})
    save_file(values(T2V), tmp_path / "w.safetensors", {"DCP_SHARDING_INFO": sharding})
    found = inspect_weights(tmp_path / "w.safetensors", T2V)
    assert found.digest is None
    assert "digest        none: not all tensors are whole" in found.lines()
    save_file(values(T2V), tmp_path / "w.safetensors")
    assert inspect_weights(tmp_path / "w.safetensors", T2V).digest is not None


def test_a_patch_of_no_size_tells_no_architecture(tmp_path: Path) -> None:
    tensors = values(T2V) | {"patch_embedding.weight": torch.ones(36, 4, 0, 2, 2)}
    save_file(tensors, tmp_path / "w.safetensors")
    assert inspect_weights(tmp_path / "w.safetensors").architecture is None
    assert "patch_embedding.weight is (36, 4, 0, 2, 2)" in does_not_fit(tmp_path / "w.safetensors")[0]


def test_another_number_of_heads_beside_the_weights_is_no_fit(tmp_path: Path) -> None:
    write_diffusers(tmp_path / "d", T2V)
    assert not inspect_weights(tmp_path / "d", T2V).differences
    config = json.loads((tmp_path / "d" / "config.json").read_text())
    (tmp_path / "d" / "config.json").write_text(
        json.dumps(config | {"num_attention_heads": 6, "eps": 1e-5, "rope_max_seq_len": 64})
    )
    assert does_not_fit(tmp_path / "d") == [
        "eps is 1e-05 in the configuration of the weights, 1e-06 in the spec",
        "num_attention_heads is 6 in the configuration of the weights, 3 in the spec",
    ]
    found = inspect_weights(tmp_path / "d", T2V)
    assert "  num_attention_heads is 6 in the configuration of the weights, 3 in the spec" in found.lines()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_attention_heads": 5}, "num_attention_heads: 5 heads do not divide hidden_size 36"),
        ({"num_attention_heads": "3"}, "num_attention_heads: expected int, got str '3'"),
        ({"eps": -1.0}, "eps: must be > 0, got -1.0"),
        ({"num_heads": True}, "num_attention_heads: expected int, got bool True"),
    ],
)
def test_a_configuration_that_no_network_of_these_shapes_has(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    write_diffusers(tmp_path / "d", T2V)
    (tmp_path / "d" / "config.json").write_text(json.dumps(settings))
    for read in (inspect_weights, lambda path: convert(path, tmp_path / "out")):
        with pytest.raises(UserError) as caught:
            read(tmp_path / "d")
        wanted = f"{tmp_path / 'd'}: in the configuration of the weights, {message}"
        assert str(caught.value).startswith(wanted)
    with pytest.raises(UserError, match="in the configuration of the weights"):
        mm_models.load(mm_models.build(T2V, "cpu"), tmp_path / "d")


def test_norms_that_nothing_uses_are_left_out_and_named(tmp_path: Path) -> None:
    spec = SPECS["i2v"]
    unused = {f"blocks.{index}.attn2.norm_added_q.weight": torch.ones(36) for index in range(3)}
    save_file({**values(spec), **unused}, tmp_path / "w.safetensors")
    assert set(open_weights(tmp_path / "w.safetensors").left_out) == set(unused)
    mm_models.load(mm_models.build(spec, "cpu"), tmp_path / "w.safetensors")
