"""Adapters that are damaged, contradict themselves or ask for more than plain LoRA: one clear error each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mm_models.lora.files import METADATA
from tests.mm_models.lora_files import ATTENTION, BLOCKS, adapter_of, halves, message_of, write

PEFT = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "bias": "none", "target_modules": ["to_q"]}
RANK_AS_ALPHA = adapter_of(BLOCKS, alpha=4.0)


def broken(tmp_path: Path, changes: dict[str, Tensor | None]) -> str:
    """What is said of a diffusers file of which some tensors are others, or gone."""
    tensors = halves(RANK_AS_ALPHA, "transformer.", "lora_A", "lora_B")
    tensors |= {name: value for name, value in changes.items() if value is not None}
    for name, value in changes.items():
        if value is None:
            del tensors[name]
    return message_of(write(tmp_path / "a.safetensors", tensors))


QUERY = "transformer.blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {f"{QUERY}.lora_B.weight": None},
            f"blocks.0.attn1.to_q lacks lora_B (lora_up); there is {QUERY}.lora_A.weight",
        ),
        ({f"{QUERY}.lora_A.weight": None}, "blocks.0.attn1.to_q lacks lora_A (lora_down); there is "),
        (
            {f"{QUERY}.lora_B.weight": torch.ones(36, 3)},
            "blocks.0.attn1.to_q has matrices that don't fit each other: (4, 36) and (36, 3)",
        ),
        ({f"{QUERY}.lora_A.weight": torch.ones(4)}, "has matrices that don't fit each other: (4,) and "),
        (
            {f"{QUERY}.lora_A.weight": torch.full((4, 36), torch.nan)},
            "blocks.0.attn1.to_q has values that are not finite",
        ),
        ({f"{QUERY}.alpha": torch.ones(2)}, "to_q.alpha must be one number, its shape is (2,)"),
        ({f"{QUERY}.alpha": torch.tensor(torch.inf)}, "the alpha of blocks.0.attn1.to_q is inf"),
        (
            {f"{QUERY}.lora_A.weight": torch.ones(4, 36, dtype=torch.int8)},
            "to_q.lora_A.weight is int8; allowed: float32, bfloat16, float16",
        ),
        (
            {f"{QUERY}.lora_B.weight": torch.ones(36, 4).to(torch.float8_e4m3fn)},
            "to_q.lora_B.weight is float8_e4m3fn; allowed: float32, bfloat16, float16",
        ),
        (
            {"transformer.proj_out.diff_b": torch.ones(16).to(torch.float8_e4m3fn)},
            "proj_out.diff_b is float8_e4m3fn; allowed: float32, bfloat16, float16",
        ),
        (
            {"transformer.proj_out.diff_b": torch.full((16,), torch.inf)},
            "proj_out.bias has values that are not finite",
        ),
        (
            {f"{QUERY}.lora_A.other.weight": torch.ones(4, 36)},
            f"holds two tensors for one: {QUERY}.lora_A.",
        ),
        (
            {f"{QUERY}.lora_magnitude_vector": torch.ones(35)},
            "to_q.lora_magnitude_vector is (35,), which fits no weight of (36, 36)",
        ),
        ({f"{QUERY}.dora_scale": torch.ones(36)}, "to_q.dora_scale is (36,), which fits no weight of"),
        (
            {f"{QUERY}.dora_scale": torch.full((36, 1), torch.nan)},
            "blocks.0.attn1.to_q has values that are not finite",
        ),
        ({f"{QUERY}.lora_B.bias": torch.ones(36, 1)}, "to_q.lora_B.bias is (36, 1), which fits no weight"),
        ({f"{QUERY}.lora_A.bias": torch.ones(4)}, "is a bias of the first matrix, which is not carried out"),
        ({f"{QUERY}.lora_mid.weight": torch.ones(4, 4)}, "is a Tucker decomposition, which is not carried"),
        (
            {f"{QUERY}.lora_B.bias": torch.ones(36), f"{QUERY}.dora_scale": torch.ones(36, 1)},
            "has a magnitude (DoRA) and a bias, which no program trains together",
        ),
        ({"transformer.proj_out.weight": torch.ones(2)}, "no adapter has keys such as transformer.proj_out"),
        (
            {"diffusion_model.head.head.lora_A.weight": torch.ones(2, 2)},
            "mixes keys of several styles: diffusers, wan",
        ),
    ],
)
def test_broken_adapters_are_one_problem_each(
    tmp_path: Path, changes: dict[str, Tensor | None], message: str
) -> None:
    assert message in broken(tmp_path, changes)


def test_ranks_and_alphas_that_contradict_the_configuration_are_named(tmp_path: Path) -> None:
    tensors = halves(adapter_of(ATTENTION[:1]), "transformer.", "lora_A", "lora_B")
    config = json.dumps({"transformer.r": 8, "transformer.lora_alpha": 8})
    file = write(tmp_path / "a.safetensors", tensors, {METADATA: config})
    assert message_of(file).endswith("blocks.0.attn1.to_q has rank 4, its configuration says 8")
    config = json.dumps({"transformer.r": 4, "transformer.lora_alpha": 8})
    write(file, {**tensors, f"{QUERY}.alpha": torch.tensor(2.0)}, {METADATA: config})
    assert message_of(file).endswith("the alpha of blocks.0.attn1.to_q is 2, its configuration says 8")
    for field in ("use_dora", "lora_bias"):
        config = json.dumps({"r": 4, "lora_alpha": 6, field: True})
        told = message_of(write(file, tensors, {METADATA: config}))
        assert told.endswith(f"blocks.0.attn1.to_q has none of {field}, its configuration says True")
    config = json.dumps({"r": 4, "lora_alpha": 6})
    tensors |= {f"{QUERY}.lora_magnitude_vector": torch.ones(36)}
    told = message_of(write(file, tensors, {METADATA: config}))
    assert told.endswith("blocks.0.attn1.to_q has one of use_dora, its configuration says False")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias": "all"}, "bias is 'all', which is not carried out; only 'none'"),
        ({"use_dora": 1.5}, "use_dora must be true or false, got 1.5"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which is not carried out; only True"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA', which is not carried out; only 'LORA'"),
        ({"a_new_field": 3}, "a_new_field is 3, which is not carried out"),
        ({"use_rslora": "no"}, "use_rslora must be true or false, got 'no'"),
        ({"r": 0}, "r must be a rank of 1 or more, got 0"),
        ({"lora_alpha": None}, "lora_alpha must be a number, got None"),
        ({"alpha_pattern": {"x": "y"}}, "alpha_pattern must hold a number for each name"),
        ({"rank_pattern": {"(": 4}}, "rank_pattern holds '(', which is no pattern"),
    ],
)
def test_what_peft_asks_for_beyond_plain_lora_is_refused_by_name(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    write(
        tmp_path / "adapter_model.safetensors", halves(adapter_of(), "base_model.model.", "lora_A", "lora_B")
    )
    (tmp_path / "adapter_config.json").write_text(json.dumps(PEFT | changes))
    assert f"{tmp_path / 'adapter_config.json'}: {message}" in message_of(tmp_path)


def test_a_peft_file_alone_does_not_say_its_alpha(tmp_path: Path) -> None:
    tensors = halves(adapter_of(), "base_model.model.", "lora_A", "lora_B")
    write(tmp_path / "adapter_model.safetensors", tensors)
    assert "adapter_config.json, which says alpha, is missing" in message_of(tmp_path)
    (tmp_path / "adapter_config.json").write_text("<html>")
    assert "adapter_config.json: is no JSON" in message_of(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    assert "holds no JSON object but a list" in message_of(tmp_path)


def test_what_is_no_adapter_is_named(tmp_path: Path) -> None:
    assert message_of(tmp_path / "none").endswith("none: no such file or folder")
    assert message_of(tmp_path).endswith("holds no safetensors file")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    assert message_of(tmp_path).endswith("; adapter_model.bin can hold code and is not opened")
    assert "adapters are read from safetensors alone" in message_of(tmp_path / "adapter_model.bin")
    weights = write(tmp_path / "a.safetensors", {"blocks.0.attn1.to_q.weight": torch.ones(2, 2)})
    assert message_of(weights).endswith("holds no adapter: its tensors are blocks.0.attn1.to_q.weight")
    write(weights, {"lora_unet_blocks_0_attn.hada_w1_a": torch.ones(2, 2)})
    assert message_of(weights).endswith("hada_w1_a is LoHa, which is not carried out")
    write(weights, {"lora_unet_down_blocks_0_q.lora_down.weight": torch.ones(2, 2)})
    assert "flat names are read for Wan's transformer alone" in message_of(weights)
    write(tmp_path / "b.safetensors", {"x": torch.ones(1)})
    assert message_of(tmp_path).endswith(
        "holds 2 safetensors files; name one of a.safetensors, b.safetensors"
    )


def test_a_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.safetensors", halves(RANK_AS_ALPHA, "transformer.", "lora_A", "lora_B"))
    file.write_bytes(file.read_bytes()[:-100])
    assert "it was cut short or is no safetensors file" in message_of(file)


def test_a_shard_of_an_adapter_is_not_whole(tmp_path: Path) -> None:
    tensors = halves(adapter_of(ATTENTION[:1]), "transformer.", "lora_A", "lora_B")
    for offsets, message in (
        ([0, 36], "to_q.lora_A.weight is not whole: parts of it are missing"),
        ([0], "to_q.lora_A.weight is (4, 36), which can't begin at (0,) of a whole tensor"),
    ):
        sharding = json.dumps({f"{QUERY}.lora_A.weight": {"saved_offsets": offsets}})
        file = write(tmp_path / "a.safetensors", tensors, {"DCP_SHARDING_INFO": sharding})
        assert message in message_of(file)
