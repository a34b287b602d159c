"""Our transformer beside diffusers' on the same random weights, for the tests that compare them."""

import math
from typing import Any

import torch
from diffusers import WanTransformer3DModel  # type: ignore[attr-defined]
from torch import Tensor, nn

import mm_models
from mm_config.specs.wan import WanTransformerSpec
from mm_models.seeding import generator


def fill(shape: tuple[int, ...], name: str) -> Tensor:
    """Uniform in [-1, 1]; large tensors repeat a million draws, which is quick and still shows any mix-up."""
    size = math.prod(shape)
    pool = torch.empty(min(size, 1_000_003)).uniform_(-1, 1, generator=generator("parity", name))
    return pool.repeat(-(-size // len(pool)))[:size].view(shape)


def diffusers_of(spec: WanTransformerSpec) -> Any:
    """Diffusers' network of a spec, on meta."""
    with torch.device("meta"):
        return WanTransformer3DModel(
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
            image_dim=spec.image_dim,
            added_kv_proj_dim=None if spec.image_dim is None else spec.hidden_size,
            pos_embed_seq_len=spec.image_positions,
            rope_max_seq_len=spec.rope_max_seq_len,
        )


def pair(spec: WanTransformerSpec) -> tuple[nn.Module, nn.Module]:
    """Diffusers' network with random values in every parameter, and ours that shares their memory."""
    theirs = diffusers_of(spec).to_empty(device="cpu")
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
    return _largest(actual - expected) / _largest(expected)


def _largest(values: Tensor) -> float:
    """The largest magnitude; NaN where any value is."""
    low, high = values.detach().aminmax()
    return torch.maximum(-low, high).item()


def assert_equal_passes(
    theirs: nn.Module, ours: nn.Module, *arguments: Tensor, their_arguments: tuple[Tensor, ...] | None = None
) -> None:
    """Both forwards agree to 1e-5 and every parameter's gradient to 1e-4."""
    expected = theirs(*(their_arguments or arguments), return_dict=False)[0]
    actual = ours(*arguments)
    assert actual.shape == expected.shape
    assert relative_error(actual, expected) <= 1e-5
    direction = torch.randn(expected.shape, generator=generator("direction"))
    expected_gradients = torch.autograd.grad(expected, list(theirs.parameters()), direction)
    actual_gradients = torch.autograd.grad(actual, list(ours.parameters()), direction)
    names = [name for name, _ in theirs.named_parameters()]
    assert [name for name, _ in ours.named_parameters()] == names
    for name, mine, other in zip(names, actual_gradients, expected_gradients, strict=True):
        assert other.any(), name
        assert relative_error(mine, other) <= 1e-4, name
