"""Adapters written with the original code's names, as ComfyUI loads them."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_wan_lora_to_diffusers
from safetensors.torch import load_file

from mm_config.schema.errors import UserError
from mm_config.specs.diffusion import Expert
from mm_models.lora.adapter import HIGH_NOISE, LOW_NOISE, Adapter
from mm_models.lora.files import read_adapters
from mm_models.lora.writing import save_adapters
from tests.mm_models.lora_files import ATTENTION, BLOCKS, adapter_of, alphas, assert_equal, halves

FILE = "lora.safetensors"


def test_they_are_what_diffusers_and_others_read(tmp_path: Path) -> None:
    adapter = adapter_of(BLOCKS, alpha=6.0)
    save_adapters({HIGH_NOISE: adapter}, tmp_path / "out", "wan")
    written = load_file(tmp_path / "out" / FILE)
    expected = halves(adapter, "diffusion_model.", "lora_down", "lora_up", wan=True)
    assert written.keys() == expected.keys() | alphas(adapter, "diffusion_model.").keys()
    assert written["diffusion_model.blocks.2.self_attn.o.alpha"].item() == 6.0
    theirs = _convert_non_diffusers_wan_lora_to_diffusers(dict(written))
    for name, layer in adapter.layers.items():
        product = theirs[f"transformer.{name}.lora_B.weight"] @ theirs[f"transformer.{name}.lora_A.weight"]
        torch.testing.assert_close(product.float(), 1.5 * layer.up @ layer.down, rtol=1e-5, atol=1e-5)


def test_the_way_back_is_exact(tmp_path: Path) -> None:
    names = (*ATTENTION, "condition_embedder.time_proj", "proj_out")
    layers = dict(adapter_of(names, alpha=1 / 3, dtype=torch.bfloat16).layers)
    width = layers[names[0]].up.shape[0]
    layers[names[0]] = attrs.evolve(layers[names[0]], magnitude=torch.rand(width, 1))
    differences = {
        "blocks.1.attn1.to_k.bias": torch.rand(width),
        "blocks.1.norm2.weight": torch.rand(width),
        "scale_shift_table": torch.rand(1, 2, width),
    }
    adapter = Adapter(layers, differences)
    save_adapters({HIGH_NOISE: adapter, LOW_NOISE: adapter_of()}, tmp_path / "out", "wan")
    for name, expected in ((HIGH_NOISE, adapter), (LOW_NOISE, adapter_of())):
        read = read_adapters(tmp_path / "out" / name)
        assert read.style == "wan"
        assert_equal(read.of(Expert.SINGLE), expected)
    keys = load_file(tmp_path / "out" / HIGH_NOISE / FILE).keys()
    assert {
        "diffusion_model.blocks.0.self_attn.q.dora_scale",
        "diffusion_model.blocks.1.self_attn.k.diff_b",
        "diffusion_model.blocks.1.norm3.diff",
        "diffusion_model.head.diff_m",
        "diffusion_model.head.head.lora_up.weight",
    } <= keys


def test_rslora_is_said_by_alpha(tmp_path: Path) -> None:
    (name, layer), *_ = adapter_of(rank=4, alpha=6.0).layers.items()
    root = Adapter({name: attrs.evolve(layer, rslora=True)})
    save_adapters({HIGH_NOISE: root}, tmp_path / "out", "wan")
    read = read_adapters(tmp_path / "out").of(Expert.SINGLE).layers[name]
    assert (read.alpha, read.scale, root.layers[name].scale) == (12.0, 3.0, 3.0)


def test_what_has_no_name_there_is_refused(tmp_path: Path) -> None:
    layers = dict(adapter_of(ATTENTION[:1]).layers)
    (layer,) = layers.values()
    for adapter, message in (
        (Adapter({**layers, "blocks.0.other": layer}), "has no names for blocks.0.other"),
        (
            Adapter({ATTENTION[0]: attrs.evolve(layer, bias=torch.ones(36))}),
            f"has no keys for biases of second matrices: {ATTENTION[0]}",
        ),
    ):
        with pytest.raises(UserError, match=f"the wan style {message}"):
            save_adapters({HIGH_NOISE: adapter}, tmp_path / "out", "wan")
    assert not list(tmp_path.iterdir())
