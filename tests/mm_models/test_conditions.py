"""Timesteps per token, image features, and calls that don't fit the network."""

import weakref
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mm_models
from mm_config.schema.errors import UserError
from mm_config.specs.wan import WanTransformerSpec
from mm_models.seeding import generator


class PeakBytes(TorchDispatchMode):
    """The most bytes that tensors made inside held at once, beside the network's own."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.live = self.peak = 0
        own = [*network.parameters(), *network.buffers()]
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in own)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for storage in [leaf.untyped_storage() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]:
            if storage not in self._seen:
                self._seen.add(storage)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _free(self, size: int) -> None:
        self.live -= size


def arguments(spec: WanTransformerSpec) -> tuple[Tensor, Tensor, Tensor]:
    draws = generator("conditions")
    latents = torch.randn(2, spec.in_channels, 3, 8, 8, generator=draws)
    return latents, torch.tensor([990.0, 3.5]), torch.randn(2, 5, spec.text_dim, generator=draws)


def test_timesteps_per_token_never_hold_a_table_of_all_entries(tiny: WanTransformerSpec) -> None:
    spec = attrs.evolve(tiny, hidden_size=96, num_attention_heads=4, ffn_dim=8)
    network = mm_models.build(spec, "cpu")
    mm_models.initialize(network, seed=0)
    latents, timestep, text = arguments(spec)
    network(latents, timestep, text)  # Makes the rotary table of this grid, which is kept.
    tokens = spec.tokens((3, 8, 8))
    per_token = timestep[:, None].repeat(1, tokens)
    per_token[:, :16] = 0
    peaks = []
    for timesteps in (timestep, per_token):
        with torch.no_grad(), PeakBytes(network) as memory:
            network(latents, timesteps, text)
        peaks.append(memory.peak)
    entry = 4 * 2 * tokens * spec.hidden_size
    # A shift and a scale are spread at a time; a table of all tokens would hold six such entries.
    assert peaks[1] - peaks[0] < 2.5 * entry


def test_a_timestep_for_each_latent_frame_is_that_of_all_its_tokens(tiny: WanTransformerSpec) -> None:
    network = mm_models.build(tiny, "cpu")
    mm_models.initialize(network, seed=0)
    torch.nn.init.normal_(network.get_parameter("proj_out.weight"))
    latents, timestep, text = arguments(tiny)
    by_frame = timestep[:, None] * torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.5, 1.0]])
    found = []
    for timesteps in (by_frame, by_frame.repeat_interleave(16, dim=1)):
        velocity = network(latents, timesteps, text)
        gradients = torch.autograd.grad(velocity.square().mean(), list(network.parameters()))
        found.append([velocity, *gradients])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def with_image(spec: WanTransformerSpec, positions: int | None = None) -> WanTransformerSpec:
    return attrs.evolve(spec, image_dim=6, image_positions=positions)


def test_image_features_change_the_prediction_of_their_own_sample(tiny: WanTransformerSpec) -> None:
    spec = with_image(tiny)
    network = mm_models.build(spec, "cpu")
    mm_models.initialize(network, seed=0)
    torch.nn.init.normal_(network.get_parameter("proj_out.weight"))
    latents, timestep, text = arguments(spec)
    image = torch.randn(2, 7, 6, generator=generator("image"))
    changed = image.clone()
    changed[1] += 1
    before, after = network(latents, timestep, text, image), network(latents, timestep, text, changed)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_the_order_of_images_matters_where_positions_are_learnt(tiny: WanTransformerSpec) -> None:
    image = torch.randn(2, 8, 6, generator=generator("image"))
    swapped = image.roll(4, dims=1)
    for positions in (None, 8):
        network = mm_models.build(with_image(tiny, positions), "cpu")
        mm_models.initialize(network, seed=0)
        torch.nn.init.normal_(network.get_parameter("proj_out.weight"))
        if positions:
            table = network.get_parameter("condition_embedder.image_embedder.pos_embed")
            assert not table.any()
            torch.nn.init.normal_(table)
        one, other = (network(*arguments(tiny), features) for features in (image, swapped))
        assert torch.allclose(one, other, atol=1e-5) == (positions is None)


WRONG_CALLS = {
    "features for a network without a branch": (
        {},
        {"image": torch.zeros(2, 7, 6)},
        ["image features are given, but the network has no image branch (image_dim is None)"],
    ),
    "no features for a network with a branch": (
        {"image_dim": 6},
        {},
        ["image features are missing: the network has an image branch of width 6"],
    ),
    "features of one image for two": (
        {"image_dim": 6, "image_positions": 14},
        {"image": torch.zeros(2, 7, 6)},
        ["image features must be [2, 14, 6], got [2, 7, 6]"],
    ),
    "no image tokens": (
        {"image_dim": 6},
        {"image": torch.zeros(2, 0, 6)},
        ["image features must be [2, tokens, 6], got [2, 0, 6]"],
    ),
    "features of another encoder and another batch": (
        {"image_dim": 6},
        {"image": torch.zeros(1, 7, 5), "text": torch.zeros(2, 5, 11)},
        [
            "text features must be [2, tokens, 10], got [2, 5, 11]",
            "image features must be [2, tokens, 6], got [1, 7, 5]",
        ],
    ),
    "latents without their image channels": (
        {"in_channels": 36},
        {"latents": torch.zeros(2, 16, 3, 8, 8)},
        ["latents have 16 channels, the network takes 36"],
    ),
    "timesteps of another count": (
        {},
        {"timestep": torch.zeros(2, 9)},
        ["timesteps must be [2], [2, 3] or [2, 48], got [2, 9]"],
    ),
    "one frame": (
        {},
        {"latents": torch.zeros(2, 4, 8, 8)},
        ["latents must be [batch, channels, frames, height, width], got [2, 4, 8, 8]"],
    ),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_a_call_that_does_not_fit_is_refused(tiny: WanTransformerSpec, case: str) -> None:
    changes, wrong, messages = WRONG_CALLS[case]
    spec = attrs.evolve(tiny, **changes)
    network = mm_models.build(spec, "meta")
    latents, timestep, text = arguments(spec)
    right = {"latents": latents, "timestep": timestep, "text": text, "image": None}
    with pytest.raises(UserError) as caught:
        network(*(right | wrong).values())
    assert [problem.message for problem in caught.value.problems] == messages
