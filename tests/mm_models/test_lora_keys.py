"""Key styles: older ones of diffusers, flat and half-flat ones, wrappers' parts, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

import mm_models
from mm_config.cli.app import app
from mm_config.schema.errors import UserError
from mm_config.specs.diffusion import Expert
from mm_models.loading import check
from mm_models.lora.adapter import LOW_NOISE, Adapter, LowRank
from mm_models.lora.files import read_adapters
from mm_models.wan.names import WAN
from tests.mm_models.lora_files import ATTENTION, BLOCKS, adapter_of, assert_equal, halves, message_of, write
from tests.mm_models.weight_files import T2V

RANK_AS_ALPHA = adapter_of(BLOCKS, alpha=4.0)


@pytest.mark.parametrize(
    ("adapter", "rename"),
    [
        (RANK_AS_ALPHA, lambda key: key),
        (RANK_AS_ALPHA, lambda key: key.replace(".lora.", ".lora_linear_layer.")),
        (
            adapter_of(ATTENTION, alpha=4.0),
            lambda key: (
                key.replace(".to_out.0.", ".to_out.")
                .replace(".to_", ".processor.to_")
                .replace(".lora.", "_lora.")
            ),
        ),
    ],
    ids=["lora.down", "lora_linear_layer.down", "processor.to_q_lora.down"],
)
def test_older_keys_of_diffusers_are_what_diffusers_makes_of_them(
    tmp_path: Path, adapter: Adapter, rename: Callable[[str], str]
) -> None:
    tensors = {rename(key): value for key, value in halves(adapter, "", "lora.down", "lora.up").items()}
    converted = convert_unet_state_dict_to_peft(
        {key.replace(".lora_linear_layer.", ".lora."): value for key, value in tensors.items()}
    )
    assert set(converted) == set(halves(adapter, "", "lora_A", "lora_B"))
    for prefix in ("", "transformer."):
        named = {f"{prefix}{key}": value for key, value in tensors.items()}
        assert_equal(read_adapters(write(tmp_path / "a.safetensors", named)).of(Expert.SINGLE), adapter)
    named = {f"transformer_2.{key}": value for key, value in tensors.items()}
    assert read_adapters(write(tmp_path / "a.safetensors", named)).experts.keys() == {LOW_NOISE}


@pytest.mark.parametrize(
    "prefix",
    [
        "lora_unet_",
        "lora_transformer_",
        "lycoris_",
        "diffusion_model.",
        "model.diffusion_model.",
        "transformer.",
        "",
    ],
)
@pytest.mark.parametrize("halved", [("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up")])
def test_every_prefix_goes_with_every_ending_and_alphas_of_each_layer(
    tmp_path: Path, prefix: str, halved: tuple[str, str]
) -> None:
    layers = RANK_AS_ALPHA.layers.items()
    alphas = {name: float(index) for index, name in enumerate(RANK_AS_ALPHA.layers)}
    adapter = Adapter({name: LowRank(layer.down, layer.up, alphas[name]) for name, layer in layers})
    tensors = halves(adapter, prefix, *halved, wan=True)
    for name, alpha in alphas.items():
        theirs = WAN.theirs(name).replace(".", "_") if prefix.endswith("_") else WAN.theirs(name)
        tensors[f"{prefix}{theirs}.alpha"] = torch.tensor(alpha)
    assert_equal(read_adapters(write(tmp_path / "a.safetensors", tensors)).of(Expert.SINGLE), adapter)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("lora_unet_blocks_0_self_attn_q", "blocks.0.attn1.to_q"),
        ("lora_unet_blocks.0.self_attn_q", "blocks.0.attn1.to_q"),
        ("lora_unet_blocks.0.self_attn.q", "blocks.0.attn1.to_q"),
        ("lora_unet_blocks_0.ffn.2", "blocks.0.ffn.net.2"),
        ("lora_unet_blocks.11.cross_attn_k_img", "blocks.11.attn2.add_k_proj"),
        ("lora_transformer_blocks.0.attn1_to_out.0", "blocks.0.attn1.to_out.0"),
        ("lora_unet__orig_mod_blocks_0_self_attn_q", "blocks.0.attn1.to_q"),
        ("lora_unet_blocks_0__orig_mod_self_attn_q", "blocks.0.attn1.to_q"),
        ("lora_unet_blocks_0__checkpoint_wrapped_module_self_attn_q", "blocks.0.attn1.to_q"),
        ("_orig_mod.blocks.0.attn1.to_q", "blocks.0.attn1.to_q"),
        ("transformer._orig_mod.blocks.0._checkpoint_wrapped_module.attn1.to_q", "blocks.0.attn1.to_q"),
        ("diffusion_model.blocks.0._fsdp_wrapped_module.self_attn.q", "blocks.0.attn1.to_q"),
        ("_orig_mod.diffusion_model.blocks.0.self_attn.q", "blocks.0.attn1.to_q"),
        ("module.diffusion_model.blocks.0.self_attn.q", "blocks.0.attn1.to_q"),
    ],
)
def test_names_are_found_behind_flattening_and_wrappers(tmp_path: Path, theirs: str, ours: str) -> None:
    tensors = {f"{theirs}.lora_down.weight": torch.ones(2, 3), f"{theirs}.lora_up.weight": torch.ones(5, 2)}
    tensors |= {f"{theirs}.diff_b": torch.ones(5), f"{theirs}.lora.alpha": torch.tensor(7.0)}
    read = read_adapters(write(tmp_path / "a.safetensors", tensors)).of(Expert.SINGLE)
    assert (set(read.layers), set(read.differences)) == ({ours}, {f"{ours}.bias"})
    assert read.layers[ours].alpha == 7


def test_flat_differences_are_of_weights_biases_norms_and_tables(tmp_path: Path) -> None:
    tensors = {
        "lora_unet_blocks_0_norm3.w_norm": torch.ones(3),
        "lora_unet_blocks_0_norm3.b_norm": torch.ones(3),
        "lora_unet_blocks_0_ffn_0.diff": torch.ones(3, 3),
        "lora_unet_blocks_0.diff_m": torch.ones(1, 6, 3),
        "lora_unet_head.diff_m": torch.ones(1, 2, 3),
    }
    read = read_adapters(write(tmp_path / "a.safetensors", tensors)).of(Expert.SINGLE)
    assert sorted(read.differences) == [
        "blocks.0.ffn.net.0.proj.weight",
        "blocks.0.norm2.bias",
        "blocks.0.norm2.weight",
        "blocks.0.scale_shift_table",
        "scale_shift_table",
    ]


def test_flat_names_that_no_table_has_are_refused(tmp_path: Path) -> None:
    tensors = {"lora_unet_input.blocks_1.lora_down.weight": torch.ones(2, 2)}
    told = message_of(write(tmp_path / "a.safetensors", tensors))
    assert "flat names are read for Wan's transformer alone, which has none of lora_unet_input.blocks" in told


def refused_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files of adapters that are not carried out, and the reason."""
    kinds = {
        "LoKr": ("lokr_w1", "lokr_w2"),
        "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
        "OFT": ("oft_blocks",),
        "GLoRA": ("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
        "IA3": ("weight", "on_input"),
    }
    for kind, parts in kinds.items():
        layers = [f"lycoris_blocks_{block}_self_attn_q" for block in range(3)]
        tensors = {f"{layer}.{part}": torch.ones(4, 4) for layer in layers for part in parts}
        yield write(folder / f"{kind}.safetensors", tensors), f"{kind}, which is not carried out"
        mixed = tensors | halves(RANK_AS_ALPHA, "lycoris_", "lora_down", "lora_up", wan=True)
        yield write(folder / f"mixed-{kind}.safetensors", mixed), f"{kind}, which is not carried out"
    pickled = folder / "lora.pt"
    torch.save(halves(RANK_AS_ALPHA, "diffusion_model.", "lora_A", "lora_B", wan=True), pickled)
    yield pickled, "adapters are read from safetensors alone: this kind of file can hold code"


def test_what_is_not_carried_out_is_refused_alike_wherever_it_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = mm_models.build(T2V)
    for path, reason in refused_files(tmp_path):
        told = message_of(path)
        assert told.startswith(f"{path}: ") and told.endswith(reason)
        for words in (["inspect", str(path)], ["convert", str(path), str(tmp_path / "out")]):
            assert app(words) == 2
            assert capsys.readouterr().err == f"{told}\n"
        for load in (check, mm_models.load):  # What start_from and high_noise go through.
            with pytest.raises(UserError) as caught:
                load(network, path)
            assert str(caught.value) == told
    plain = write(tmp_path / "plain.safetensors", halves(RANK_AS_ALPHA, "transformer.", "lora_A", "lora_B"))
    with pytest.raises(
        UserError, match=r"is an adapter \(LoRA\), .* it belongs in spec\.loras of a generation"
    ):
        check(network, plain)
