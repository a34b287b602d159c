"""A network that is compiled whole, as one graph, has the values and gradients of the network as it is."""

import shutil

import pytest
import torch
from torch import Tensor
from torch.autograd import grad

import mm_models
from mm_config import replace
from mm_config.families.tiny import TINY
from mm_models.seeding import generator

TIMESTEPS = {"samples": torch.tensor([5.0, 700.0]), "tokens": torch.tensor([[0.0, 700.0], [5.0, 5.0]])}


@pytest.mark.parametrize(
    ("backend", "of"),
    [
        ("eager", "tokens"),
        pytest.param("aot_eager", "samples", marks=pytest.mark.slow),
        pytest.param(
            "inductor",
            "samples",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++ on a CPU"),
            ],
        ),
    ],
)
def test_a_network_is_one_graph_with_the_same_values_and_gradients(backend: str, of: str) -> None:
    torch._dynamo.reset()
    model = replace(TINY.model, "num_layers", 1)
    network = mm_models.build(model, "cpu")
    mm_models.initialize(network, seed=0)
    torch.nn.init.normal_(network.get_parameter("proj_out.weight"), generator=generator("out"))
    draws = generator("inputs")
    latents = torch.randn(2, model.in_channels, 2, 4, 4, generator=draws)
    text = torch.randn(2, 3, model.text_dim, generator=draws)
    found: list[tuple[Tensor, ...]] = []
    for one in (network, torch.compile(network, backend=backend, fullgraph=True)):
        velocity = one(latents, TIMESTEPS[of], text)
        found.append((velocity, *grad(velocity.square().sum(), list(network.parameters()))))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())
