"""Wan's transformer on the device gives the values and the gradients that it gives on the CPU."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
import torch
from torch import Tensor, nn

import mm_models
from mm_config.specs.wan import WanTransformerSpec
from mm_models.ops.choosing import Ops
from mm_models.seeding import generator
from tests.npu_standin.parity import assert_all_equal, assert_equal, on_device
from tests.tiny_wan import TINY_WAN

TEXT_TO_VIDEO = attrs.evolve(
    TINY_WAN, hidden_size=64, num_attention_heads=4, ffn_dim=96, text_dim=24, freq_dim=32
)
IMAGE_TO_VIDEO = attrs.evolve(TEXT_TO_VIDEO, in_channels=9, image_dim=20)
LATENTS = (2, 4, 3, 8, 6)
TEXT_TOKENS = 7


def drawn(
    spec: WanTransformerSpec,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    ops: Ops | None = None,
) -> nn.Module:
    """A network with random values in every parameter, of the size that trained ones have."""
    network = mm_models.build(spec, device, dtype, ops)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 36
            values = torch.randn(parameter.shape, generator=generator("drawn", name)) / fan_in**0.5
            parameter.copy_(values + float("norm" in name and name.endswith("weight")))
    return network


def inputs(spec: WanTransformerSpec, per_token: bool = False) -> list[Tensor]:
    draws = generator("inputs")
    tokens = spec.tokens((LATENTS[2], LATENTS[3], LATENTS[4]))
    timestep = 1000 * torch.rand((LATENTS[0], tokens) if per_token else (LATENTS[0],), generator=draws)
    text = torch.randn(LATENTS[0], TEXT_TOKENS, spec.text_dim, generator=draws)
    latents = torch.randn(LATENTS[0], spec.in_channels, *LATENTS[2:], generator=draws)
    return [latents, timestep, text]


def passes(network: nn.Module, arguments: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and every parameter's gradient."""
    out = network(*arguments)
    direction = torch.randn(out.shape, generator=generator("direction")).to(out)
    parameters = dict(network.named_parameters())
    gradients = torch.autograd.grad(out, list(parameters.values()), direction)
    return out.detach(), dict(zip(parameters, gradients, strict=True))


def assert_equal_passes(spec: WanTransformerSpec, arguments: list[Tensor], npu: torch.device) -> None:
    expected, expected_gradients = passes(drawn(spec, torch.device("cpu")), arguments)
    actual, actual_gradients = passes(drawn(spec, npu), on_device(arguments, npu))
    assert_equal(actual, expected)
    assert all(bool(gradient.any()) for gradient in expected_gradients.values())
    assert_all_equal(actual_gradients, expected_gradients)


@pytest.mark.parametrize("per_token", [False, True], ids=["a timestep per sample", "a timestep per token"])
def test_values_and_gradients_equal_the_cpus(
    npu: torch.device, npu_calls: Counter[str], per_token: bool
) -> None:
    assert_equal_passes(TEXT_TO_VIDEO, inputs(TEXT_TO_VIDEO, per_token), npu)
    layers = TEXT_TO_VIDEO.num_layers
    # Self-attention and cross-attention, each with normed queries and keys; only the first kind is turned.
    assert npu_calls["npu_fusion_attention"] == npu_calls["npu_fusion_attention_grad"] == 2 * layers
    assert npu_calls["npu_rms_norm"] == npu_calls["npu_rms_norm_backward"] == 4 * layers
    assert npu_calls["npu_rotary_mul"] == npu_calls["npu_rotary_mul_backward"] == 2 * layers


def test_an_image_branch_equals_the_cpus(npu: torch.device, npu_calls: Counter[str]) -> None:
    image = torch.randn(LATENTS[0], IMAGE_TO_VIDEO.image_positions or 5, 20, generator=generator("image"))
    assert_equal_passes(IMAGE_TO_VIDEO, [*inputs(IMAGE_TO_VIDEO), image], npu)
    assert npu_calls["npu_fusion_attention"] == 3 * IMAGE_TO_VIDEO.num_layers


def test_bfloat16_parameters_compute_on_the_device_as_on_the_cpu(npu: torch.device) -> None:
    """Both round as often, so that they differ by roundings of intermediate values, 2^-9 each."""
    arguments = inputs(TEXT_TO_VIDEO)
    cpu = drawn(TEXT_TO_VIDEO, torch.device("cpu"), torch.bfloat16)
    with torch.no_grad():
        expected = cpu(*arguments)
        actual = drawn(TEXT_TO_VIDEO, npu, torch.bfloat16)(*on_device(arguments, npu)).cpu()
    assert actual.dtype == torch.float32
    assert float((actual - expected).norm() / expected.norm()) <= 0.02
