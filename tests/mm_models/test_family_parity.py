"""Every Wan family, narrowed, against diffusers on the same random weights: values and gradients."""

import attrs
import pytest
import torch
from torch import Tensor

import mm_models
from mm_config.families import wan21, wan22
from mm_config.specs.family import Family
from mm_config.specs.wan import WanTransformerSpec
from mm_models.seeding import generator
from tests.mm_models.parity import assert_equal_passes, diffusers_of, inputs, pair

IMAGE_TOKENS = 9
TEXT_TOKENS = 512  # diffusers takes all but the last 512 tokens for the image's.
FAMILIES = {
    "Wan2.1 T2V": wan21.T2V_1_3B,
    "Wan2.1 I2V": wan21.I2V_14B_480P,
    "Wan2.1 FLF2V": wan21.FLF2V_14B,
    "Wan2.2 T2V": wan22.T2V_A14B,
    "Wan2.2 I2V": wan22.I2V_A14B,
    "Wan2.2 TI2V": wan22.TI2V_5B,
}
PUBLISHED = {
    "Wan2.1 T2V 1.3B": (wan21.T2V_1_3B, 1_418_996_800),
    "Wan2.1 T2V 14B": (wan21.T2V_14B, 14_288_491_584),
    "Wan2.1 I2V 14B 480p": (wan21.I2V_14B_480P, 16_394_878_784),
    "Wan2.1 I2V 14B 720p": (wan21.I2V_14B_720P, 16_394_878_784),
    "Wan2.1 FLF2V 14B": (wan21.FLF2V_14B, 16_395_536_704),
    "Wan2.2 T2V A14B": (wan22.T2V_A14B, 14_288_491_584),
    "Wan2.2 I2V A14B": (wan22.I2V_A14B, 14_288_901_184),
    "Wan2.2 TI2V 5B": (wan22.TI2V_5B, 4_999_787_712),
    "Wan2.2 T2V A14B, 4 steps": (wan22.T2V_A14B_DISTILLED, 14_288_491_584),
    "Wan2.2 I2V A14B, 4 steps": (wan22.I2V_A14B_DISTILLED, 14_288_901_184),
}


def narrowed(family: Family) -> WanTransformerSpec:
    """The family's network with few and narrow layers."""
    model = family.model
    assert isinstance(model, WanTransformerSpec)
    narrow = attrs.evolve(
        model, hidden_size=96, num_attention_heads=3, ffn_dim=128, num_layers=2, text_dim=24
    )
    if model.image_dim is None:
        return narrow
    positions = model.image_positions and 2 * IMAGE_TOKENS
    return attrs.evolve(narrow, image_dim=20, image_positions=positions)


def both_arguments(spec: WanTransformerSpec) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Arguments for diffusers, which has several images side by side in the batch, and for ours."""
    latents, timestep, text = inputs(spec, (2, spec.in_channels, 3, 6, 4), TEXT_TOKENS)
    if spec.in_channels == spec.out_channels == 48:
        timestep = timestep[:, None].repeat(1, spec.tokens((3, 6, 4)))
        timestep[:, : spec.tokens((1, 6, 4))] = 0
    plain = latents, timestep, text
    if spec.image_dim is None:
        return plain, plain
    images = 1 if spec.image_positions is None else 2
    features = torch.randn(2 * images, IMAGE_TOKENS, spec.image_dim, generator=generator("image"))
    return (*plain, features), (*plain, features.view(2, images * IMAGE_TOKENS, spec.image_dim))


@pytest.mark.parametrize("name", FAMILIES)
def test_values_and_gradients_of_every_family_equal_diffusers(name: str) -> None:
    spec = narrowed(FAMILIES[name])
    theirs, ours = pair(spec)
    for_theirs, for_ours = both_arguments(spec)
    assert_equal_passes(theirs, ours, *for_ours, their_arguments=for_theirs)


@pytest.mark.parametrize("name", ["Wan2.1 I2V", "Wan2.1 FLF2V"])
def test_any_number_of_text_tokens_stands_beside_an_image(name: str) -> None:
    # A softmax over repeated keys is the softmax over the keys, so 8 tokens equal diffusers' 512.
    spec = narrowed(FAMILIES[name])
    theirs, ours = pair(spec)
    (latents, timestep, text, their_image), (*_, image) = both_arguments(spec)
    few = text[:, :8]
    expected = latents, timestep, few.repeat(1, TEXT_TOKENS // 8, 1), their_image
    assert_equal_passes(theirs, ours, latents, timestep, few, image, their_arguments=expected)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_shapes_order_and_count_are_those_of_the_published_network(name: str) -> None:
    family, count = PUBLISHED[name]
    spec = family.model
    assert isinstance(spec, WanTransformerSpec)
    shapes = list(spec.parameter_shapes().items())
    for network in (mm_models.build(spec, "meta"), diffusers_of(spec)):
        assert [(key, tuple(value.shape)) for key, value in network.named_parameters()] == shapes
        assert list(network.state_dict()) == [key for key, _ in shapes]
    assert spec.parameter_count() == count
