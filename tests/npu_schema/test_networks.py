"""Whole networks on the path that an NPU takes, against the plain operations on the same weights."""

from collections import Counter
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mm_models
from mm_config.specs.kinds import Conditioning
from mm_config.specs.wan import WanTransformerSpec
from mm_models import flow
from mm_models.ops.choosing import REFERENCE, Ops, choose
from tests.npu_schema.agreement import normal
from tests.tiny_wan import TINY_WAN

IMAGE = attrs.evolve(
    TINY_WAN, in_channels=9, image_dim=12, image_positions=5, conditioning=Conditioning.FIRST_FRAME
)
SPECS = {"text": TINY_WAN, "image": IMAGE, "per_token": TINY_WAN}
FOREIGN = (torch.complex32, torch.complex64, torch.complex128, torch.float64)


def network_of(spec: WanTransformerSpec, ops: Ops) -> nn.Module:
    """A network whose weights are all random, also those that training starts at zero."""
    network = mm_models.build(spec, "cpu", ops=ops)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            values = 0.2 * normal(*parameter.shape, name=name)
            parameter.copy_(1 + values if "norm" in name and name.endswith("weight") else values)
    return network


def inputs(name: str) -> tuple[Tensor, ...]:
    """Latents, timesteps, text and, for the network with an image branch, image features."""
    spec = SPECS[name]
    latents = normal(2, spec.in_channels, 3, 4, 6)
    timestep = torch.tensor([999.0, 250.0])
    if name == "per_token":
        timestep = torch.tensor([[0.0] * 6 + [999.0] * 12, [0.0] * 6 + [250.0] * 12])
    image = () if spec.image_dim is None else (normal(2, 5, 12),)
    return latents, timestep, normal(2, 7, spec.text_dim, name="text"), *image


def velocity_and_gradients(name: str, ops: Ops) -> dict[str, Tensor]:
    """The output, and the gradient of every parameter and of the latents."""
    network, (latents, *rest) = network_of(SPECS[name], ops), inputs(name)
    velocity = network(latents.requires_grad_(), *rest)
    (velocity * normal(*velocity.shape, name="direction")).mean().backward()
    gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
    found = {"velocity": velocity, "latents": latents.grad, **gradients}
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.parametrize("name", SPECS)
def test_a_network_equals_the_plain_one_in_values_and_gradients(name: str, npu_calls: Counter[str]) -> None:
    ours, plain = velocity_and_gradients(name, choose("npu")), velocity_and_gradients(name, REFERENCE)
    assert ours.keys() == plain.keys() and len(ours) > 50
    for key, value in plain.items():
        # A key's bias gets what is left where all gradients of scores nearly cancel: its matrix has the size.
        sized = plain[key.replace("bias", "weight")] if key.endswith("k_proj.bias") else value
        tolerance = 1e-6 if key == "velocity" else 5e-6
        error = (ours[key] - value).detach().abs().max() / sized.detach().abs().max()
        assert float(error) < tolerance, key
    # Two blocks of self-attention and of attention to text, and in one network to images as well.
    attended, normed = (6, 10) if name == "image" else (4, 8)
    assert npu_calls == {"npu_fusion_attention": attended, "npu_rms_norm": normed, "npu_rotary_mul": 4}


class Formats(TorchDispatchMode):
    """Notes the operations that read or make numbers of a format."""

    def __init__(self, formats: tuple[torch.dtype, ...]) -> None:
        super().__init__()
        self.formats, self.found = formats, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, out)):
            if isinstance(leaf, Tensor) and leaf.dtype in self.formats:
                self.found.add(f"{func} of {leaf.dtype}")
        return out


@pytest.mark.parametrize("name", SPECS)
def test_no_complex_number_and_no_float64_is_on_the_path_of_a_training_step(name: str) -> None:
    """Both are computed on an NPU's slow processor, if at all; tables are made on the CPU before."""
    network, (latents, timestep, *rest) = network_of(SPECS[name], choose("npu")), inputs(name)
    noise, sigma = normal(*latents.shape, name="noise"), torch.tensor([0.9, 0.3], dtype=torch.float64)
    noised = flow.add_noise(latents, noise, sigma)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    with Formats(FOREIGN) as formats:
        velocity = network(noised, timestep, *rest)
        target = flow.velocity_target(latents, noise)[:, : velocity.shape[1]]
        (velocity - target).square().mean().backward()
        optimizer.step()
    assert formats.found == set()


def test_the_search_for_formats_finds_them() -> None:
    with Formats(FOREIGN) as formats:
        x = torch.ones(2, 2)
        torch.view_as_complex(x)
        x.double()
    assert {text.rpartition(" ")[2] for text in formats.found} == {"torch.complex64", "torch.float64"}
