"""Values and every gradient of our transformer equal diffusers', at published widths and at odd ones."""

import attrs
import pytest
import torch

from mm_config.specs.wan import WanTransformerSpec
from tests.mm_models.parity import assert_equal_passes, inputs, pair
from tests.tiny_wan import TINY_WAN

WAN_1_3B_WIDTH = WanTransformerSpec(
    hidden_size=1536, num_attention_heads=12, ffn_dim=8960, num_layers=2, text_dim=512
)
WAN_14B_WIDTH = WanTransformerSpec(
    hidden_size=5120, num_attention_heads=40, ffn_dim=512, num_layers=1, text_dim=512
)
DEMO = attrs.evolve(
    TINY_WAN,
    hidden_size=192,
    num_attention_heads=4,
    ffn_dim=768,
    num_layers=4,
    in_channels=12,
    out_channels=12,
    patch_size=(1, 4, 4),
    text_dim=64,
    freq_dim=64,
)
ODD_HEADS = attrs.evolve(
    TINY_WAN,
    hidden_size=70,
    num_attention_heads=7,
    ffn_dim=33,
    num_layers=3,
    in_channels=5,
    out_channels=3,
    patch_size=(2, 3, 1),
    text_dim=11,
    freq_dim=18,
    cross_attn_norm=False,
    eps=1e-5,
)
CASES = {
    "1.3B width": (WAN_1_3B_WIDTH, (2, 16, 3, 4, 6), 7),
    "14B width": (WAN_14B_WIDTH, (1, 16, 1, 4, 4), 3),
    "demo": (DEMO, (3, 12, 5, 8, 8), 6),
    "odd heads and patch": (ODD_HEADS, (2, 5, 4, 6, 5), 4),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_diffusers(case: str) -> None:
    spec, shape, text_tokens = CASES[case]
    theirs, ours = pair(spec)
    assert_equal_passes(theirs, ours, *inputs(spec, shape, text_tokens))


@pytest.mark.parametrize("case", ["demo", "odd heads and patch"])
def test_a_timestep_per_token_equals_diffusers(case: str) -> None:
    spec, shape, text_tokens = CASES[case]
    theirs, ours = pair(spec)
    latents, timestep, text = inputs(spec, shape, text_tokens)
    tokens = spec.tokens((shape[2], shape[3], shape[4]))
    per_token = timestep[:, None].repeat(1, tokens)
    per_token[:, : tokens // 3] = 0
    assert_equal_passes(theirs, ours, latents, per_token, text)


def test_equal_timesteps_per_token_are_one_timestep_per_sample() -> None:
    _, ours = pair(DEMO)
    latents, timestep, text = inputs(DEMO, (3, 12, 5, 8, 8), 6)
    per_token = timestep[:, None].expand(-1, DEMO.tokens((5, 8, 8)))
    assert torch.equal(ours(latents, per_token, text), ours(latents, timestep, text))


def test_a_table_first_made_while_sampling_serves_training() -> None:
    _, ours = pair(DEMO)
    arguments = inputs(DEMO, (3, 12, 5, 8, 8), 6)
    with torch.inference_mode():
        sampled = ours(*arguments)
    trained = ours(*arguments)
    trained.sum().backward()
    assert torch.equal(sampled, trained)
    assert all(parameter.grad is not None for parameter in ours.parameters())
