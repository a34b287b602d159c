"""Quantised experts: against weights that are rounded by hand, and their bytes against the plan."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.planning.inference import infer_memory
from mm_config.schema import UserError
from mm_config.specs import Dtype, Expert, InferSpec, QuantFormat, QuantizationSpec, Residency
from mm_infer import load

INT8 = QuantizationSpec(format=QuantFormat.INT8)
GROUPS = QuantizationSpec(format=QuantFormat.INT8, group_size=16, skip=("blocks.*.attn2",))
FP8 = QuantizationSpec(format=QuantFormat.FP8)
DYNAMIC = QuantizationSpec(format=QuantFormat.INT8, dynamic=True)
ALL = {"int8": INT8, "groups": GROUPS, "fp8": FP8, "dynamic": DYNAMIC}


def rounded(weight: Tensor, quantization: QuantizationSpec) -> Tensor:
    """A matrix as its 8-bit values mean it: the largest magnitude of a row or group is the format's."""
    groups = weight.float().unflatten(1, (-1, quantization.group_size or weight.shape[1]))
    largest = groups.abs().amax(2, keepdim=True)
    if quantization.format is QuantFormat.INT8:
        scale = largest / 127.5
        values = (groups * (1 / scale)).round().clamp(-128, 127)
    else:
        scale = largest / 448
        values = (groups / scale).to(torch.float8_e4m3fn).float()
    return (values * scale).flatten(1)


class Rounded(nn.Module):
    """A linear layer with rounded weights, and where they are dynamic with int8 inputs of a scale each."""

    def __init__(self, layer: nn.Linear, quantization: QuantizationSpec) -> None:
        super().__init__()
        self.weight, self.bias = rounded(layer.weight, quantization), layer.bias
        self.quantization = quantization

    def forward(self, inputs: Tensor) -> Tensor:
        if self.quantization.dynamic:
            inputs = rounded(inputs.flatten(0, -2), self.quantization).view_as(inputs)
        return nn.functional.linear(inputs, self.weight, self.bias)


def is_quantized(name: str, quantization: QuantizationSpec) -> bool:
    """Whether a layer of Wan's network is one of those that the specs of this file mean."""
    left = "attn2" in name and quantization is GROUPS
    return name.startswith("blocks.") and not left


@pytest.mark.parametrize("quantization", ALL.values(), ids=ALL)
def test_a_quantised_expert_computes_with_weights_rounded_by_hand(
    spec: InferSpec, options: RunOptions, quantization: QuantizationSpec
) -> None:
    exact = load(spec, options).networks[Expert.HIGH_NOISE]
    small = load(replace(spec, {"quantization": quantization}), options).networks[Expert.HIGH_NOISE]
    model = spec.model
    latents = torch.randn(2, model.in_channels, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    inputs = latents, torch.tensor([700.0, 900.0]), torch.randn(2, 8, model.text_dim)
    with torch.inference_mode():
        before = exact(*inputs)
        for name, module in list(exact.named_modules()):
            if isinstance(module, nn.Linear) and is_quantized(name, quantization):
                exact.set_submodule(name, Rounded(module, quantization))
        expected, found = exact(*inputs), small(*inputs)
    # An input between two steps of int8 may fall to either.
    near = 3e-4 if quantization.dynamic else 1e-5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=near)
    assert (expected - before).abs().max() > 10 * near


@pytest.mark.parametrize("dtype", [Dtype.FLOAT32, Dtype.BFLOAT16])
@pytest.mark.parametrize("quantization", ALL.values(), ids=ALL)
def test_quantised_weights_take_the_bytes_that_the_plan_counts(
    spec: InferSpec, options: RunOptions, quantization: QuantizationSpec, dtype: Dtype
) -> None:
    wanted = replace(spec, {"quantization": quantization, "dtype": dtype})
    total = 0
    for network in load(wanted, options).networks.values():
        for parameter in network.parameters():
            stored = [getattr(parameter, part) for part in ("qdata", "scale") if hasattr(parameter, part)]
            total += sum(tensor.untyped_storage().nbytes() for tensor in stored or [parameter])
    planned = infer_memory(wanted).phases["denoising"]["parameters"]
    assert (
        total
        == planned
        < infer_memory(replace(wanted, {"quantization": None})).phases["denoising"]["parameters"]
    )


def test_a_quantised_video_is_another_one_and_comes_out_again(spec: InferSpec, options: RunOptions) -> None:
    (exact,) = load(spec, options)(["a red circle moving right"], output="float")
    quantized = replace(spec, {"quantization": INT8})
    (found,) = load(quantized, options)(["a red circle moving right"], output="float")
    (again,) = load(quantized, options)(["a red circle moving right"], output="float")
    assert torch.equal(found.frames, again.frames)
    assert 0 < (found.frames - exact.frames).abs().max() < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization.format": QuantFormat.NF4}, "format: is nf4, which is not there yet; fp8 or int8 is"),
        (
            {"quantization.format": QuantFormat.FP8, "quantization.group_size": 16},
            "quantization.group_size: is 16, but fp8 has one scale for each row; leave it None, or take ",
        ),
        (
            {"quantization.dynamic": True, "quantization.group_size": 16},
            "group_size: is 16, but quantization.dynamic has one scale for each row; leave it None, or take ",
        ),
        (
            {"quantization.format": QuantFormat.FP8, "quantization.dynamic": True},
            "quantization.dynamic: is True, but products of fp8 are not available on cpu in float32; they "
            "need bfloat16 on CUDA with a capability of 8.9; choose quantization.format int8, or False for",
        ),
        (
            {"runtime.residency.experts": Residency.LAYERWISE, "runtime.residency.prefetch": 0},
            "quantization: can't be carried out with runtime.residency.experts layerwise yet",
        ),
    ],
)
def test_what_quantisation_can_not_do_is_refused_by_name(
    spec: InferSpec, options: RunOptions, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        load(replace(replace(spec, {"quantization": INT8}), changes), options)
    assert message in str(caught.value)
