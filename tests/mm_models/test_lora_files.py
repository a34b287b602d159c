"""Adapters in every key style: read as their tools mean them, written so that those tools read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_musubi_wan_lora_to_diffusers,
    _convert_non_diffusers_wan_lora_to_diffusers,
)
from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from mm_config.schema.errors import UserError
from mm_config.specs.diffusion import Expert
from mm_models.lora.adapter import HIGH_NOISE, LOW_NOISE, Adapter, LowRank
from mm_models.lora.files import METADATA, read_adapters
from mm_models.lora.writing import save_adapters
from tests.mm_models.lora_files import (
    ATTENTION,
    BLOCKS,
    adapter_of,
    alphas,
    assert_equal,
    halves,
    message_of,
    write,
)
from tests.mm_models.weight_files import I2V

PEFT = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "bias": "none", "target_modules": ["to_q"]}
RANK_AS_ALPHA = adapter_of(BLOCKS, alpha=4.0)


def single(path: Path) -> Adapter:
    return read_adapters(path).of(Expert.SINGLE)


def change(adapter: Adapter, name: str) -> Tensor:
    return adapter.layers[name].change(1.0, torch.empty(0))


def assert_equals_diffusers(adapter: Adapter, converted: dict[str, Tensor]) -> None:
    """Layers are those that diffusers makes of the file, and so is what each adds to its weight."""
    names = {key.removeprefix("transformer.").rpartition(".lora_")[0] for key in converted}
    assert adapter.layers.keys() == names
    for name in names:
        down = converted[f"transformer.{name}.lora_A.weight"]
        up = converted[f"transformer.{name}.lora_B.weight"]
        torch.testing.assert_close(change(adapter, name), up @ down, rtol=1e-5, atol=1e-5)


def test_diffusers_own_file_is_read_and_ours_is_read_by_diffusers(tmp_path: Path) -> None:
    adapter = adapter_of(dtype=torch.bfloat16)
    layers = halves(adapter, "", "lora_A", "lora_B")
    WanLoraLoaderMixin.save_lora_weights(
        tmp_path / "theirs",
        {**layers},
        transformer_lora_adapter_metadata={"r": 4, "lora_alpha": 6, "target_modules": ["to_q", "to_k"]},
    )
    assert_equal(single(tmp_path / "theirs"), adapter)

    save_adapters({HIGH_NOISE: adapter}, tmp_path / "ours")
    found = WanLoraLoaderMixin.lora_state_dict(
        str(tmp_path / "ours"), return_lora_metadata=True, local_files_only=True
    )
    state, metadata = found
    assert state.keys() == {f"transformer.{key}" for key in layers}
    assert all(torch.equal(state[f"transformer.{key}"], value) for key, value in layers.items())
    assert all("lora" in key for key in state)  # diffusers refuses all other keys, alphas among them.
    assert metadata["transformer.r"] == 4 and metadata["transformer.lora_alpha"] == 6


@pytest.mark.parametrize("spelling", [("lora_A", "lora_B"), ("lora_down", "lora_up")])
def test_keys_of_the_original_code_mean_what_diffusers_makes_of_them(
    tmp_path: Path, spelling: tuple[str, str]
) -> None:
    tensors = halves(RANK_AS_ALPHA, "diffusion_model.", *spelling, wan=True)
    read = single(write(tmp_path / "a.safetensors", tensors))
    assert_equal(read, RANK_AS_ALPHA)
    assert_equals_diffusers(read, _convert_non_diffusers_wan_lora_to_diffusers(dict(tensors)))

    adapter = adapter_of(BLOCKS)
    tensors = halves(adapter, "diffusion_model.", *spelling, wan=True) | alphas(adapter, "diffusion_model.")
    read = single(write(tmp_path / "b.safetensors", tensors))
    assert_equal(read, adapter)
    assert_equals_diffusers(read, _convert_non_diffusers_wan_lora_to_diffusers(dict(tensors)))


def test_kohyas_flat_keys_mean_what_diffusers_makes_of_them(tmp_path: Path) -> None:
    image = tuple(f"blocks.{block}.attn2.add_{part}_proj" for block in range(3) for part in "kv")
    adapter = adapter_of(BLOCKS + image, alpha=2.0, spec=I2V)
    tensors = halves(adapter, "lora_unet_", "lora_down", "lora_up", wan=True)
    tensors |= alphas(adapter, "lora_unet_")
    assert "lora_unet_blocks_0_self_attn_q.lora_down.weight" in tensors
    read = read_adapters(write(tmp_path / "a.safetensors", tensors))
    assert read.style == "kohya"
    assert_equal(read.of(Expert.SINGLE), adapter)
    assert_equals_diffusers(read.of(Expert.SINGLE), _convert_musubi_wan_lora_to_diffusers(dict(tensors)))


def test_embedders_and_the_output_layer_are_adapted_too(tmp_path: Path) -> None:
    names = (
        "condition_embedder.time_proj",
        *(f"condition_embedder.{part}_embedder.linear_{n}" for part in ("text", "time") for n in (1, 2)),
        "proj_out",
    )
    adapter = adapter_of(ATTENTION + names, alpha=4.0)
    tensors = halves(adapter, "diffusion_model.", "lora_A", "lora_B", wan=True)
    read = single(write(tmp_path / "a.safetensors", tensors))
    assert_equal(read, adapter)
    assert_equals_diffusers(read, _convert_non_diffusers_wan_lora_to_diffusers(dict(tensors)))


def test_full_differences_are_those_of_weights_biases_and_modulation(tmp_path: Path) -> None:
    differences = {
        "blocks.1.norm2.weight": torch.randn(36),
        "blocks.0.attn1.norm_q.weight": torch.randn(36),
        "blocks.0.ffn.net.2.bias": torch.randn(36),
        "blocks.2.scale_shift_table": torch.randn(1, 6, 36),
        "scale_shift_table": torch.randn(1, 2, 36),
        "patch_embedding.weight": torch.randn(36, 4, 1, 2, 2),
    }
    tensors = {
        "blocks.1.norm3.diff": differences["blocks.1.norm2.weight"],
        "blocks.0.self_attn.norm_q.diff": differences["blocks.0.attn1.norm_q.weight"],
        "blocks.0.ffn.2.diff_b": differences["blocks.0.ffn.net.2.bias"],
        "blocks.2.diff_m": differences["blocks.2.scale_shift_table"],
        "head.diff_m": differences["scale_shift_table"],
        "patch_embedding.diff": differences["patch_embedding.weight"],
    }
    tensors = {f"diffusion_model.{name}": value for name, value in tensors.items()}
    tensors |= halves(RANK_AS_ALPHA, "diffusion_model.", "lora_down", "lora_up", wan=True)
    read = single(write(tmp_path / "a.safetensors", tensors))
    assert_equal(read, Adapter(RANK_AS_ALPHA.layers, differences))
    with pytest.raises(UserError, match=r"no keys for full differences, and the adapter has them: "):
        save_adapters({HIGH_NOISE: read}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("prefix", "halved", "wan", "style"),
    [
        ("", ("lora_A.default", "lora_B.default"), True, "wan"),
        ("pipe.dit.", ("lora_A.default", "lora_B.default"), True, "wan"),
        ("model.diffusion_model.", ("lora_A", "lora_B"), True, "wan"),
        ("", ("lora_A", "lora_B"), False, "diffusers"),
        ("transformer.", ("lora_A", "lora_B"), False, "diffusers"),
    ],
)
def test_other_prefixes_and_a_name_behind_the_half_are_read(
    tmp_path: Path, prefix: str, halved: tuple[str, str], wan: bool, style: str
) -> None:
    tensors = halves(RANK_AS_ALPHA, prefix, *halved, wan=wan)
    read = read_adapters(write(tmp_path / "a.safetensors", tensors))
    assert read.style == style
    assert_equal(read.of(Expert.SINGLE), RANK_AS_ALPHA)


@pytest.mark.parametrize("half", [("lora_A", "lora_B"), ("lora_A.default", "lora_B.default")])
def test_peft_folders_are_read_with_their_configuration(tmp_path: Path, half: tuple[str, str]) -> None:
    adapter = adapter_of()
    narrow = adapter_of(ATTENTION[:1], rank=2, alpha=8.0).layers
    adapter = Adapter({**adapter.layers, **narrow})
    write(tmp_path / "adapter_model.safetensors", halves(adapter, "base_model.model.", *half))
    config = PEFT | {"rank_pattern": {ATTENTION[0]: 2}, "alpha_pattern": {r"blocks\.0\.attn1.to_q": 8}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert_equal(single(tmp_path), adapter)
    assert_equal(single(tmp_path / "adapter_model.safetensors"), adapter)

    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"use_rslora": True}))
    stable = single(tmp_path)
    assert stable.layers[ATTENTION[1]].scale == 6 / 2  # alpha over the root of rank 4
    save_adapters({HIGH_NOISE: stable}, tmp_path / "again", "peft")
    assert_equal(single(tmp_path / "again"), stable)


@pytest.mark.parametrize("style", ["diffusers", "peft"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_round_trip_is_exact_whatever_ranks_and_alphas(
    tmp_path: Path, style: str, dtype: torch.dtype
) -> None:
    layers = adapter_of(BLOCKS, rank=4, alpha=1 / 3, dtype=dtype).layers
    wide = adapter_of(BLOCKS[:5], rank=7, alpha=16.0, dtype=dtype).layers
    adapter = Adapter({**layers, **wide})
    save_adapters({HIGH_NOISE: adapter}, tmp_path / "out", style)
    read = read_adapters(tmp_path / "out")
    assert read.style == style
    assert_equal(read.of(Expert.SINGLE), adapter)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_peft_files_say_what_peft_asks_for(tmp_path: Path) -> None:
    save_adapters({HIGH_NOISE: adapter_of()}, tmp_path / "out", "peft")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["bias"]) == ("LORA", 4, 6, "none")
    assert sorted(config["target_modules"]) == sorted(ATTENTION)
    keys = load_file(tmp_path / "out" / "adapter_model.safetensors").keys()
    assert "base_model.model.blocks.0.attn1.to_q.lora_A.weight" in keys


def test_a_file_with_both_experts_serves_each_with_its_own(tmp_path: Path) -> None:
    experts = {HIGH_NOISE: adapter_of(alpha=3.0), LOW_NOISE: adapter_of(rank=5, key="low")}
    save_adapters(experts, tmp_path / "both")
    read = read_adapters(tmp_path / "both")
    assert_equal(read.of(Expert.HIGH_NOISE), experts[HIGH_NOISE])
    assert_equal(read.of(Expert.LOW_NOISE), experts[LOW_NOISE])
    with pytest.raises(
        UserError, match="holds an adapter of both experts; one for a single network is wanted"
    ):
        read.of(Expert.SINGLE)

    save_adapters(experts, tmp_path / "peft", "peft")
    for name, adapter in experts.items():
        assert_equal(single(tmp_path / "peft" / name), adapter)

    save_adapters({LOW_NOISE: experts[LOW_NOISE]}, tmp_path / "low")
    read = read_adapters(tmp_path / "low")
    assert_equal(read.of(Expert.LOW_NOISE), experts[LOW_NOISE])
    with pytest.raises(UserError, match=r"low-noise expert \(transformer_2\) alone; one for the high-noise"):
        read.of(Expert.HIGH_NOISE)

    save_adapters({HIGH_NOISE: experts[HIGH_NOISE]}, tmp_path / "any")
    assert_equal(read_adapters(tmp_path / "any").of(Expert.LOW_NOISE), experts[HIGH_NOISE])


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already; nothing is overwritten"):
        save_adapters({HIGH_NOISE: adapter_of()}, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(UserError, match=r"the folder .*nowhere' does not exist"):
        save_adapters({HIGH_NOISE: adapter_of()}, tmp_path / "nowhere" / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_convolutions_and_scalars_with_an_axis_are_read(tmp_path: Path) -> None:
    down, up = torch.randn(4, 4, 1, 2, 2), torch.randn(36, 4, 1, 1, 1)
    tensors = {
        "diffusion_model.patch_embedding.lora_down.weight": down,
        "diffusion_model.patch_embedding.lora_up.weight": up,
        "diffusion_model.patch_embedding.alpha": torch.tensor([2.0]),
    }
    read = single(write(tmp_path / "a.safetensors", tensors))
    assert_equal(read, Adapter({"patch_embedding": LowRank(down, up, 2.0)}))
    expected = 0.5 * torch.einsum("or,rcijk->ocijk", up.flatten(1), down)
    torch.testing.assert_close(change(read, "patch_embedding"), expected)


def test_patterns_of_a_configuration_are_over_the_files_own_names(tmp_path: Path) -> None:
    tensors = halves(adapter_of(), "base_model.model.", "lora_A", "lora_B", wan=True)
    write(tmp_path / "adapter_model.safetensors", tensors)
    config = PEFT | {"alpha_pattern": {"self_attn.q": 8}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    found = {name: layer.alpha for name, layer in single(tmp_path).layers.items()}
    assert found == {name: 8.0 if name.endswith("attn1.to_q") else 6.0 for name in ATTENTION}


def test_names_of_any_network_are_kept_as_they_are(tmp_path: Path) -> None:
    down, up = torch.randn(2, 3), torch.randn(5, 2)
    tensors = {
        "transformer.layers.0.mixer.w_in.lora_A.weight": down,
        "transformer.layers.0.mixer.w_in.lora_B.weight": up,
    }
    read = single(write(tmp_path / "a.safetensors", tensors))
    assert_equal(read, Adapter({"layers.0.mixer.w_in": LowRank(down, up, 2.0)}))


def test_metadata_of_another_expert_is_not_taken(tmp_path: Path) -> None:
    adapters = {HIGH_NOISE: adapter_of(alpha=2.0), LOW_NOISE: adapter_of(alpha=9.0)}
    save_adapters(adapters, tmp_path / "out")
    with safe_open(tmp_path / "out" / "pytorch_lora_weights.safetensors", framework="pt") as opened:
        stored = json.loads(opened.metadata()[METADATA])
    assert (stored["transformer.lora_alpha"], stored["transformer_2.lora_alpha"]) == (2, 9)
    assert read_adapters(tmp_path / "out").of(Expert.LOW_NOISE).layers[ATTENTION[0]].alpha == 9
    tensors = halves(adapter_of(), "transformer_2.", "lora_A", "lora_B")
    config = json.dumps({"transformer.r": 4, "transformer.lora_alpha": 8})
    told = message_of(write(tmp_path / "low.safetensors", tensors, {METADATA: config}))
    assert told.endswith("(lora_adapter_metadata): says nothing of transformer_2, whose matrices it holds")
    for stored in ("[]", "{"):
        write(tmp_path / "low.safetensors", tensors, {METADATA: stored})
        assert "(lora_adapter_metadata): " in message_of(tmp_path / "low.safetensors")
