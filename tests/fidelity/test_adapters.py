"""Adapters of PEFT, diffusers and LyCORIS give their weights and outputs here, and ours do there."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from diffusers.loaders import WanLoraLoaderMixin  # type: ignore[attr-defined]
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from mm_config.schema import UserError
from mm_config.specs import Expert, LoraInit, LoraSpec
from mm_models.lora.adapter import HIGH_NOISE, Adapter, Addition
from mm_models.lora.files import read_adapters
from mm_models.lora.merging import merge
from mm_models.lora.training import attach_trainable, initialize_adapters, trained_adapter
from mm_models.lora.unmerged import attach
from mm_models.lora.writing import save_adapters
from tests.mm_models.lora_files import ATTENTION, FEED_FORWARD, adapter_of, assert_equal, network_of, write
from tests.mm_models.parity import fill, inputs, pair, relative_error
from tests.mm_models.weight_files import T2V

pytestmark = pytest.mark.filterwarnings("ignore:Adapter .default")

QUERY = "blocks.0.attn1.to_q"
TARGETS = ["to_q", "to_v", "to_out.0", "net.2", "time_proj", "proj_out"]
CONFIGS: Mapping[str, dict[str, Any]] = {
    "plain": {"alpha_pattern": {"attn2.to_v": 9}, "rank_pattern": {"blocks.1.attn1.to_q": 3}},
    "rank-stabilised": {"use_rslora": True},
    "a convolution": {"target_modules": [*TARGETS, "patch_embedding"]},
    "DoRA": {"use_dora": True},
    "DoRA of a convolution": {"use_dora": True, "target_modules": [*TARGETS, "patch_embedding"]},
    "lora_bias": {"lora_bias": True},
    "lora_bias of a convolution": {"lora_bias": True, "target_modules": [*TARGETS, "patch_embedding"]},
}


def forward(network: nn.Module, **options: Any) -> Tensor:
    with torch.no_grad():
        found = network(*inputs(T2V, (2, 4, 2, 4, 4), 5), **options)
    return found[0] if options else found


def shaken(network: nn.Module) -> None:
    """Every parameter of adapters anew, magnitudes near what they were."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_magnitude_vector" in name:
                parameter.mul_(1 + 0.3 * fill(tuple(parameter.shape), name))
            elif "lora_" in name:
                parameter.copy_(0.3 * fill(tuple(parameter.shape), name))


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
def test_what_peft_trained_gives_pefts_merged_weights_and_outputs(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    theirs, shared = pair(T2V)
    ours = deepcopy(shared)
    before = {name: value.clone() for name, value in ours.named_parameters()}
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": TARGETS, **options})
    wrapped: Any = get_peft_model(theirs, config)
    shaken(wrapped)
    wrapped.save_pretrained(tmp_path)
    expected = forward(wrapped, return_dict=False)
    merged = dict(wrapped.merge_and_unload().named_parameters())

    addition = Addition(read_adapters(tmp_path).of(Expert.SINGLE))
    attached = attach(ours, [addition])
    assert relative_error(forward(ours), expected) <= 1e-6
    attached.detach()
    assert all(torch.equal(value, before[name]) for name, value in ours.named_parameters())
    assert not [name for name, _ in ours.named_buffers() if "lora" in name]
    merge(ours, [addition])
    assert sum(not torch.equal(value, before[name]) for name, value in merged.items()) >= len(TARGETS)
    for name, value in ours.named_parameters():
        assert relative_error(value, merged[name]) <= 1e-6, name


def by_formula(weight: Tensor, layer: dict[str, Tensor], axis: int, strength: float) -> Tensor:
    """LyCORIS's LoCon with weight decomposition, in float64: norms over all axes but one."""
    down, up = layer["lora_down.weight"].double(), layer["lora_up.weight"].double()
    product = torch.einsum("or,r...->o...", up.flatten(1), down)
    changed = weight.double() + layer["alpha"].item() / len(down) * product
    squares = changed.square().movedim(axis, 0).flatten(1).sum(1)
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    scaled = changed * layer["dora_scale"].double() / squares.sqrt().view(shape)
    return weight + strength * (scaled - weight)


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_lycoris_dora_scale_is_its_formula_by_rows_or_columns(
    tmp_path: Path, axis: int, strength: float
) -> None:
    network = network_of()
    names = {"lora_unet_blocks_0_self_attn_q": QUERY, "lora_unet_patch_embedding": "patch_embedding"}
    names |= {"lora_unet_blocks_1_ffn_0": "blocks.1.ffn.net.0.proj"}
    tensors: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    for theirs, name in names.items():
        weight = network.get_parameter(f"{name}.weight").detach()
        ones = [1] * (weight.ndim - 2)
        scale = [weight.shape[0], 1, *ones] if axis == 0 else [1, weight.shape[1], *ones]
        layer = {
            "lora_down.weight": fill((4, *weight.shape[1:]), f"{name} down"),
            "lora_up.weight": fill((weight.shape[0], 4, *ones), f"{name} up"),
            "dora_scale": 1.5 + fill((*scale,), f"{name} scale"),
            "alpha": torch.tensor(3.0),
        }
        tensors |= {f"{theirs}.{part}": value for part, value in layer.items()}
        expected[f"{name}.weight"] = by_formula(weight, layer, axis, strength)
    addition = Addition(read_adapters(write(tmp_path / "a.safetensors", tensors)).of(Expert.SINGLE), strength)
    attached = attach(network, [addition])
    live = forward(network)
    attached.detach()
    merge(network, [addition])
    for name, value in expected.items():
        assert relative_error(network.get_parameter(name), value) <= 1e-6, name
    assert relative_error(live, forward(network)) <= 1e-5
    if axis == 0:
        save_adapters({HIGH_NOISE: addition.adapter}, tmp_path / "out")
        assert_equal(read_adapters(tmp_path / "out").of(Expert.SINGLE), addition.adapter)
    else:
        with pytest.raises(UserError, match=r"can't say DoRA by columns \(dora_scale\) of "):
            save_adapters({HIGH_NOISE: addition.adapter}, tmp_path / "out")


def test_no_strength_changes_nothing_and_several_add_up_as_each_alone() -> None:
    plain = network_of()
    weight = plain.get_parameter(f"{QUERY}.weight").detach().clone()
    (layer,) = adapter_of([QUERY]).layers.values()
    dora = Adapter({QUERY: attrs.evolve(layer, magnitude=1.5 + fill((36, 1), "magnitude"))})
    other = adapter_of([QUERY], rank=3, key="other")
    merge(plain, [Addition(dora, 0.0)])
    assert torch.equal(plain.get_parameter(f"{QUERY}.weight"), weight)
    changes = [one.layers[QUERY].change(0.5, weight) for one in (dora, other)]
    beside, merged = network_of(), network_of()
    additions = [Addition(dora, 0.5), Addition(other, 0.5)]
    attach(beside, additions)
    merge(merged, additions)
    torch.testing.assert_close(merged.get_parameter(f"{QUERY}.weight"), weight + changes[0] + changes[1])
    assert relative_error(forward(beside), forward(merged)) <= 1e-5
    zeros = attrs.evolve(layer, up=torch.zeros(36, 4), magnitude=torch.full((36, 1), 100.0))
    assert torch.equal(zeros.change(1.0, torch.zeros(36, 36)), torch.zeros(36, 36))


@pytest.mark.parametrize("style", ["diffusers", "peft"])
def test_what_a_training_made_loads_in_diffusers_and_in_peft(tmp_path: Path, style: str) -> None:
    theirs, shared = pair(T2V)
    ours = deepcopy(shared)
    lora = LoraSpec(rank=4, alpha=6.0, targets=(*ATTENTION, *FEED_FORWARD, "proj_out"))
    attach_trainable(ours, lora)
    initialize_adapters(ours, LoraInit.KAIMING, seed=1)
    shaken(ours)
    save_adapters({HIGH_NOISE: trained_adapter(ours, lora.alpha)}, tmp_path / "out", style)
    if style == "peft":
        theirs: Any = PeftModel.from_pretrained(theirs, str(tmp_path / "out"))  # type: ignore[arg-type]
    else:
        # What load_lora_weights of diffusers' pipelines does.
        state, metadata = WanLoraLoaderMixin.lora_state_dict(
            str(tmp_path / "out"), return_lora_metadata=True, local_files_only=True
        )
        WanLoraLoaderMixin.load_lora_into_transformer(state, theirs, metadata=metadata)
    loaded = {
        name.replace(".default.", ".").replace("default_0.", "").removeprefix("base_model.model."): value
        for name, value in theirs.named_parameters()
        if ".lora_" in name
    }
    trained = {name: value for name, value in ours.named_parameters() if ".lora_" in name}
    assert loaded.keys() == trained.keys()
    assert all(torch.equal(value, trained[name]) for name, value in loaded.items())
    assert relative_error(forward(ours), forward(theirs, return_dict=False)) <= 1e-6


def test_dora_and_biases_that_are_written_again_load_in_diffusers(tmp_path: Path) -> None:
    for options in (CONFIGS["DoRA of a convolution"], CONFIGS["lora_bias"]):
        theirs, _ = pair(T2V)
        again = deepcopy(theirs)
        config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": TARGETS, **options})
        wrapped: Any = get_peft_model(theirs, config)  # type: ignore[arg-type]
        shaken(wrapped)
        name = next(iter(options))
        wrapped.save_pretrained(tmp_path / name)
        read = read_adapters(tmp_path / name)
        save_adapters(read.experts, tmp_path / f"{name}-again")
        state, metadata = WanLoraLoaderMixin.lora_state_dict(
            str(tmp_path / f"{name}-again"), return_lora_metadata=True, local_files_only=True
        )
        WanLoraLoaderMixin.load_lora_into_transformer(state, again, metadata=metadata)
        expected = forward(wrapped, return_dict=False)
        assert relative_error(forward(again, return_dict=False), expected) <= 1e-6
