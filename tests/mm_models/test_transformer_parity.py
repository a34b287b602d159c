"""Our transformer against diffusers' on the same random weights: values and every gradient."""

import math
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel  # type: ignore[attr-defined]
from torch import Tensor, nn

import mm_models
from mm_config.specs.wan import WanTransformerSpec
from mm_models.seeding import generator

WAN_1_3B_WIDTH = WanTransformerSpec(
    hidden_size=1536, num_attention_heads=12, ffn_dim=8960, num_layers=2, text_dim=512
)
WAN_14B_WIDTH = WanTransformerSpec(
    hidden_size=5120, num_attention_heads=40, ffn_dim=6144, num_layers=1, text_dim=512
)
DEMO = WanTransformerSpec(
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
ODD_HEADS = WanTransformerSpec(
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
IMAGE_TO_VIDEO_CHANNELS = WanTransformerSpec(
    hidden_size=96,
    num_attention_heads=3,
    ffn_dim=128,
    num_layers=2,
    in_channels=36,
    out_channels=16,
    text_dim=24,
    rope_max_seq_len=16,
)

CASES = {
    "1.3B width": (WAN_1_3B_WIDTH, (2, 16, 3, 4, 6), 7),
    "14B width": (WAN_14B_WIDTH, (1, 16, 1, 4, 4), 3),
    "demo": (DEMO, (3, 12, 5, 8, 8), 6),
    "odd heads and patch": (ODD_HEADS, (2, 5, 4, 6, 5), 4),
    "image to video channels": (IMAGE_TO_VIDEO_CHANNELS, (2, 36, 3, 6, 4), 9),
}


def fill(shape: tuple[int, ...], name: str) -> Tensor:
    """Uniform in [-1, 1]; large tensors repeat a million draws, which is quick and still shows any mix-up."""
    size = math.prod(shape)
    pool = torch.empty(min(size, 1_000_003)).uniform_(-1, 1, generator=generator("parity", name))
    return pool.repeat(-(-size // len(pool)))[:size].view(shape)


def pair(spec: WanTransformerSpec) -> tuple[nn.Module, nn.Module]:
    """Diffusers' network with random values in every parameter, and ours that shares their memory."""
    with torch.device("meta"):
        theirs: Any = WanTransformer3DModel(
            patch_size=spec.patch_size,
            num_attention_heads=spec.num_attention_heads,
            attention_head_dim=spec.attention_head_dim,
            in_channels=spec.in_channels,
            out_channels=spec.out_channels,
            text_dim=spec.text_dim,
            freq_dim=spec.freq_dim,
            ffn_dim=spec.ffn_dim,
            num_layers=spec.num_layers,
            cross_attn_norm=spec.cross_attn_norm,
            eps=spec.eps,
            rope_max_seq_len=spec.rope_max_seq_len,
        )
    theirs.to_empty(device="cpu")
    theirs.rope = type(theirs.rope)(spec.attention_head_dim, spec.patch_size, spec.rope_max_seq_len)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 12
            parameter.copy_(fill(tuple(parameter.shape), name) * (3 / fan_in) ** 0.5)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    ours = mm_models.build(spec, "meta")
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    ours.init_buffers("cpu")  # type: ignore[operator]
    return theirs, ours.requires_grad_(True)


def inputs(
    spec: WanTransformerSpec, shape: tuple[int, ...], text_tokens: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, a fractional timestep per sample, and text features."""
    draws = generator("inputs", spec.hidden_size)
    latents = torch.randn(shape, generator=draws)
    timestep = 1000 * torch.rand(shape[0], generator=draws)
    return latents, timestep, torch.randn(shape[0], text_tokens, spec.text_dim, generator=draws)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value."""
    largest = torch.linalg.vector_norm(expected, math.inf)
    return (torch.linalg.vector_norm(actual - expected, math.inf) / largest).item()


def assert_equal_passes(theirs: nn.Module, ours: nn.Module, *arguments: Tensor) -> None:
    """Both forwards agree to 1e-5 and every parameter's gradient to 1e-4."""
    expected = theirs(*arguments, return_dict=False)[0]
    actual = ours(*arguments)
    assert actual.shape == expected.shape
    assert relative_error(actual, expected) <= 1e-5
    direction = torch.randn(expected.shape, generator=generator("direction"))
    expected_gradients = torch.autograd.grad(expected, list(theirs.parameters()), direction)
    actual_gradients = torch.autograd.grad(actual, list(ours.parameters()), direction)
    names = [name for name, _ in theirs.named_parameters()]
    for name, mine, other in zip(names, actual_gradients, expected_gradients, strict=True):
        assert other.any(), name
        assert relative_error(mine, other) <= 1e-4, name


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_diffusers(case: str) -> None:
    spec, shape, text_tokens = CASES[case]
    theirs, ours = pair(spec)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
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


def test_bfloat16_is_as_near_to_float32_as_diffusers_is() -> None:
    theirs, ours = pair(DEMO)
    arguments = inputs(DEMO, (3, 12, 5, 8, 8), 6)
    expected = ours(*arguments)
    latents, timestep, text = arguments
    halved = (latents.bfloat16(), timestep, text.bfloat16())
    their_error = relative_error(theirs.bfloat16()(*halved, return_dict=False)[0].float(), expected)
    narrow = mm_models.build(DEMO, "cpu", torch.bfloat16)
    narrow.load_state_dict(ours.state_dict())
    actual = narrow(*arguments)
    assert actual.dtype == torch.float32
    assert relative_error(actual, expected) <= 1.2 * their_error


def test_a_table_first_made_while_sampling_serves_training() -> None:
    _, ours = pair(DEMO)
    arguments = inputs(DEMO, (3, 12, 5, 8, 8), 6)
    with torch.inference_mode():
        sampled = ours(*arguments)
    trained = ours(*arguments)
    trained.sum().backward()
    assert torch.equal(sampled, trained)
    assert all(parameter.grad is not None for parameter in ours.parameters())
