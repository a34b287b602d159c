"""In bfloat16 our network is as near to its float32 output as diffusers' is when that is loaded as users do.

`WanTransformer3DModel.from_pretrained(folder, torch_dtype=torch.bfloat16)` keeps norms, modulation tables and
the time embedder in float32, which a plain `.bfloat16()` does not.
"""

from pathlib import Path

import attrs
import pytest
import torch
from diffusers import WanTransformer3DModel  # type: ignore[attr-defined]
from torch import Tensor, nn

import mm_models
from mm_config.specs.wan import WanTransformerSpec
from mm_models.seeding import generator
from tests.mm_models.parity import fill, pair
from tests.mm_models.test_family_parity import FAMILIES, narrowed

SEEDS = range(5)
IMAGE_TOKENS, TEXT_TOKENS = 9, 512
T2V, I2V, FLF2V = (narrowed(FAMILIES[f"Wan2.1 {kind}"]) for kind in ("T2V", "I2V", "FLF2V"))
I2V_22, TI2V = narrowed(FAMILIES["Wan2.2 I2V"]), narrowed(FAMILIES["Wan2.2 TI2V"])


def sized(spec: WanTransformerSpec, width: int, heads: int, layers: int) -> WanTransformerSpec:
    """The same network at another width and depth."""
    return attrs.evolve(
        spec, hidden_size=width, num_attention_heads=heads, num_layers=layers, ffn_dim=2 * width
    )


SHAPES = {
    "T2V, 96 wide, 2 layers, 18 tokens": (T2V, (3, 6, 4)),
    "T2V, 96 wide, 2 layers, 320 tokens": (T2V, (5, 16, 16)),
    "T2V, 256 wide, 1 layer": (sized(T2V, 256, 2, 1), (3, 8, 8)),
    "T2V, 256 wide, 4 layers": (sized(T2V, 256, 2, 4), (3, 8, 8)),
    "T2V, 48 wide, 8 layers": (sized(T2V, 48, 2, 8), (2, 8, 8)),
    "T2V, 384 wide, one frame": (sized(T2V, 384, 3, 2), (1, 8, 8)),
    "I2V, 96 wide, 2 layers": (I2V, (3, 6, 4)),
    "I2V, 192 wide, 3 layers": (sized(I2V, 192, 3, 3), (2, 8, 8)),
    "FLF2V, 96 wide, 2 layers": (FLF2V, (3, 6, 4)),
    "Wan2.2 I2V, 96 wide, 2 layers": (I2V_22, (3, 6, 4)),
    "Wan2.2 I2V, 128 wide, 6 layers": (sized(I2V_22, 128, 1, 6), (2, 8, 8)),
    "TI2V by token, 96 wide, 2 layers": (TI2V, (3, 6, 4)),
    "TI2V by token, 256 wide, 3 layers": (sized(TI2V, 256, 2, 3), (2, 8, 8)),
    "TI2V by token, 64 wide, 6 layers": (sized(TI2V, 64, 1, 6), (4, 8, 8)),
}
DEEP = {
    "T2V, 16 layers": (sized(T2V, 64, 1, 16), (2, 8, 8)),
    "Wan2.2 I2V, 12 layers": (sized(I2V_22, 96, 2, 12), (2, 8, 8)),
}


def trained_pair(spec: WanTransformerSpec) -> tuple[nn.Module, nn.Module]:
    """Diffusers' network and ours with the same random weights, modulation tables far from their init."""
    theirs, ours = pair(spec)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name.endswith("scale_shift_table"):
                parameter.copy_(fill(tuple(parameter.shape), name) / 2)
    return theirs, ours


def arguments(spec: WanTransformerSpec, grid: tuple[int, int, int], seed: int) -> tuple[Tensor, ...]:
    """One sample's arguments for ours; a network of 48 channels has a clean first frame."""
    draws = generator("bfloat16", seed)
    latents = torch.randn(1, spec.in_channels, *grid, generator=draws)
    timestep = 1000 * torch.rand(1, generator=draws)
    if spec.in_channels == 48:
        timestep = timestep[:, None].repeat(1, spec.tokens(grid))
        timestep[:, : spec.tokens((1, *grid[1:]))] = 0
    text = torch.randn(1, TEXT_TOKENS, spec.text_dim, generator=draws)
    if spec.image_dim is None:
        return latents, timestep, text
    tokens = IMAGE_TOKENS * (1 if spec.image_positions is None else 2)
    return latents, timestep, text, torch.randn(1, tokens, spec.image_dim, generator=draws)


def test_what_stays_float32_is_listed() -> None:
    network = mm_models.build(sized(FLF2V, 96, 2, 1), "meta", torch.bfloat16)
    kept = [name for name, value in network.named_parameters() if value.dtype == torch.float32]
    assert sorted(kept) == [
        "blocks.0.attn1.norm_k.weight",
        "blocks.0.attn1.norm_q.weight",
        "blocks.0.attn2.norm_added_k.weight",
        "blocks.0.attn2.norm_k.weight",
        "blocks.0.attn2.norm_q.weight",
        "blocks.0.norm2.bias",
        "blocks.0.norm2.weight",
        "blocks.0.scale_shift_table",
        "condition_embedder.image_embedder.norm1.bias",
        "condition_embedder.image_embedder.norm1.weight",
        "condition_embedder.image_embedder.norm2.bias",
        "condition_embedder.image_embedder.norm2.weight",
        "condition_embedder.time_embedder.linear_1.bias",
        "condition_embedder.time_embedder.linear_1.weight",
        "condition_embedder.time_embedder.linear_2.bias",
        "condition_embedder.time_embedder.linear_2.weight",
        "scale_shift_table",
    ]


def rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_of_bfloat16_is_at_most_that_of_diffusers_as_it_is_loaded(
    shape: str, tmp_path: Path
) -> None:
    spec, grid = SHAPES[shape]
    theirs, ours = trained_pair(spec)
    theirs.save_pretrained(tmp_path)  # type: ignore[operator]
    their_narrow = WanTransformer3DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    narrow = mm_models.build(spec, "cpu", torch.bfloat16)
    mm_models.load(narrow, tmp_path)
    assert {name for name, value in their_narrow.named_parameters() if value.dtype == torch.float32} <= {
        name for name, value in narrow.named_parameters() if value.dtype == torch.float32
    }
    error = their_error = 0.0
    for seed in SEEDS:
        latents, timestep, *features = arguments(spec, grid, seed)
        expected = ours(latents, timestep, *features)
        halved = latents.bfloat16(), timestep, *(feature.bfloat16() for feature in features)
        their_halved = *halved[:3], *(image.view(-1, IMAGE_TOKENS, image.shape[-1]) for image in halved[3:])
        error += rms(narrow(*halved).float() - expected)
        their_error += rms(their_narrow(*their_halved, return_dict=False)[0].float() - expected)
    assert error <= 1.02 * their_error, f"{error / their_error:.4f} of diffusers'"


@torch.no_grad()
@pytest.mark.parametrize("shape", DEEP)
def test_a_float32_residual_stream_halves_the_error(shape: str) -> None:
    spec, grid = DEEP[shape]
    _, ours = trained_pair(spec)
    networks = [mm_models.build(spec, "cpu", torch.bfloat16, float32_residual=on) for on in (False, True)]
    for network in networks:
        network.load_state_dict(ours.state_dict())
    narrow = wide = 0.0
    for seed in SEEDS:
        given = arguments(spec, grid, seed)
        expected = ours(*given)
        of_narrow, of_wide = (rms(network(*given) - expected) for network in networks)
        narrow, wide = narrow + of_narrow, wide + of_wide
    assert wide <= 0.55 * narrow, f"{wide / narrow:.3f} of the narrow stream's"
