"""The global norm and clipping against their formula, for plain and sharded gradients together."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from mm_config.specs.optim import AdamWSpec
from mm_models.ranks import joined
from mm_train.clipping import clip_gradients, clipping_of, global_norm


def with_gradient(gradient: Tensor) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros_like(gradient))
    parameter.grad = gradient
    return parameter


def test_gradients_above_the_norm_are_scaled_to_it_together() -> None:
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]]), torch.zeros(0)]
    parameters = [with_gradient(gradient.clone()) for gradient in gradients]
    assert float(clip_gradients(parameters, max_norm=1.0)) == 5.0
    scaled = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
    assert torch.allclose(scaled, torch.tensor([0.6, 0.0, 0.8]))


def test_gradients_below_the_norm_stay_as_they_are() -> None:
    parameter = with_gradient(torch.tensor([0.3, 0.4]))
    norm = clip_gradients([parameter, nn.Parameter(torch.zeros(1))], max_norm=1.0)
    assert torch.isclose(norm, torch.tensor(0.5))
    assert parameter.grad is not None
    assert torch.equal(parameter.grad, torch.tensor([0.3, 0.4]))


def test_a_moving_average_of_the_norms_before_is_clipped_to() -> None:
    clipping = clipping_of(AdamWSpec(max_grad_norm=2.0, adaptive_clip_decay=0.75), torch.device("cpu"))
    average, norms = 2.0, [4.0, 1.0, math.inf, 8.0]
    for norm in norms:
        parameter = with_gradient(torch.tensor([0.0, norm]))
        assert float(clipping.clip([parameter])) == norm
        if math.isfinite(norm):
            assert parameter.grad is not None
            assert float(parameter.grad.norm()) == pytest.approx(min(norm, average), rel=1e-5)
            average = 0.75 * average + 0.25 * norm
        assert float(clipping.tensors()["average"]) == pytest.approx(average)
    fixed = clipping_of(AdamWSpec(max_grad_norm=2.0), torch.device("cpu"))
    assert float(fixed.clip([with_gradient(torch.tensor([4.0]))])) == 4.0 and fixed.tensors() == {}


def test_sharded_and_plain_gradients_count_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(5, 3, generator=generator) for _ in range(3)]
    expected = torch.cat([tensor.flatten() for tensor in tensors]).norm()
    with joined(torch.device("cpu"), sharded=True):
        mesh = init_device_mesh("cpu", (1,))
        mixed = [tensors[0], *(distribute_tensor(tensor, mesh, [Shard(0)]) for tensor in tensors[1:])]
        assert torch.allclose(global_norm(mixed), expected)
        parameters = [with_gradient(tensor.clone()) for tensor in mixed]
        clip_gradients(parameters, max_norm=0.5)
        clipped = [parameter.grad for parameter in parameters if parameter.grad is not None]
        assert torch.allclose(global_norm(clipped), torch.tensor(0.5))
