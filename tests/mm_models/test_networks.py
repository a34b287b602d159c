"""Building, first weights, and what the spec says about the network without torch."""

from collections.abc import Callable

import attrs
import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import mm_models
from mm_config.schema.decorator import spec
from mm_config.schema.errors import UserError
from mm_config.specs.kinds import AutoencoderSpec, ModelSpec
from mm_config.specs.wan import WanTransformerSpec
from mm_config.specs.weights import RandomWeights
from mm_models.networks import copy_whole
from mm_models.ops.choosing import Ops, choose
from mm_models.registered import register
from mm_models.seeding import generator
from mm_models.wan.transformer import WanTransformer

WAN_14B = WanTransformerSpec(hidden_size=5120, num_attention_heads=40, ffn_dim=13824, num_layers=40)
IMAGE_BRANCH = {"in_channels": 12, "image_dim": 6, "image_positions": 10}


def sharded(spec: WanTransformerSpec, policy: MixedPrecisionPolicy | None = None) -> nn.Module:
    """Built on meta, sharded over all ranks, allocated, not yet filled."""
    network = mm_models.build(spec, "meta")
    mesh = init_device_mesh("cpu", (2,))
    for block in network.blocks:  # type: ignore[union-attr]
        fully_shard(block, mesh=mesh, mp_policy=policy or MixedPrecisionPolicy())
    fully_shard(network, mesh=mesh, mp_policy=policy or MixedPrecisionPolicy())
    return network.to_empty(device="cpu")


def arguments(spec: WanTransformerSpec) -> tuple[torch.Tensor, ...]:
    draws = generator("arguments")
    latents = torch.randn(2, spec.in_channels, 3, 4, 6, generator=draws)
    text = torch.randn(2, 5, spec.text_dim, generator=draws)
    if spec.image_dim is None:
        return latents, torch.tensor([990.0, 3.5]), text
    image = torch.randn(2, spec.image_positions or 7, spec.image_dim, generator=draws)
    return latents, torch.tensor([990.0, 3.5]), text, image


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cross_attn_norm": False, "patch_size": (2, 1, 3), "num_layers": 5},
        {"image_dim": 6},
        IMAGE_BRANCH,
    ],
)
def test_the_spec_knows_every_parameter(tiny: WanTransformerSpec, changes: dict[str, object]) -> None:
    spec = attrs.evolve(tiny, **changes)
    network = mm_models.build(spec, "meta")
    built = [(name, tuple(parameter.shape)) for name, parameter in network.named_parameters()]
    assert built == list(spec.parameter_shapes().items())
    assert list(network.state_dict()) == list(spec.parameter_shapes())


@pytest.mark.parametrize("latent_shape", [(21, 60, 104), (1, 2, 2)])
@pytest.mark.parametrize("image_tokens", [0, 257])
def test_forward_flops_are_exactly_the_matrix_products(
    latent_shape: tuple[int, int, int], image_tokens: int
) -> None:
    image_dim = 1280 if image_tokens else None
    spec = attrs.evolve(WAN_14B, num_layers=2, image_dim=image_dim)
    # Forms that go over tokens in thousands of small steps multiply no matrices, so plain ones stand in.
    ops = Ops(attention=choose("cpu").attention)
    network = mm_models.build(spec, "meta", ops=ops)
    network.init_buffers("meta")  # type: ignore[operator]
    latents = torch.empty(1, 16, *latent_shape, device="meta")
    text = torch.empty(1, 512, 4096, device="meta")
    image = torch.empty(1, image_tokens, 1280, device="meta") if image_tokens else None
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        network(latents, torch.empty(1, device="meta"), text, image)
    expected = spec.forward_flops(latent_shape, 512, image_tokens)
    assert expected == counter.get_total_flops()


@pytest.mark.parametrize("changes", [{}, IMAGE_BRANCH])
def test_first_weights_are_the_same_eager_and_from_meta(
    tiny: WanTransformerSpec, changes: dict[str, object]
) -> None:
    spec = attrs.evolve(tiny, **changes)
    eager = WanTransformer(spec, choose("cpu"))
    mm_models.initialize(eager, seed=7)
    from_meta = mm_models.build(spec, "meta").to_empty(device="cpu")
    mm_models.initialize(from_meta, seed=7)
    from_meta.init_buffers("cpu")  # type: ignore[operator]
    for (name, expected), actual in zip(eager.named_parameters(), from_meta.parameters(), strict=True):
        assert torch.equal(actual, expected), name
    for (name, expected), actual in zip(eager.named_buffers(), from_meta.buffers(), strict=True):
        assert torch.equal(actual, expected), name
    nn.init.normal_(eager.proj_out.weight)
    from_meta.load_state_dict(eager.state_dict())
    assert torch.equal(from_meta(*arguments(spec)), eager(*arguments(spec)))


def test_first_weights_follow_the_rules_of_wan(tiny: WanTransformerSpec) -> None:
    spec = attrs.evolve(
        tiny,
        hidden_size=192,
        num_attention_heads=4,
        ffn_dim=384,
        num_layers=1,
        in_channels=16,
        text_dim=128,
        image_dim=160,
        image_positions=6,
    )
    network = mm_models.build(spec, "cpu")
    mm_models.initialize(network, seed=1)
    named = dict(network.named_parameters())
    assert not named["proj_out.weight"].any()
    assert not any(value.any() for name, value in named.items() if name.endswith("bias"))
    assert all(
        (value == 1).all() for name, value in named.items() if "norm" in name and name.endswith("weight")
    )
    to_q = named["blocks.0.attn1.to_q.weight"]
    bound = (6 / (192 + 192)) ** 0.5
    assert 0.99 * bound < to_q.abs().max() <= bound
    for name, fan_in in (
        ("blocks.0.attn2.add_k_proj", 192),
        ("blocks.0.attn2.add_v_proj", 192),
        ("condition_embedder.image_embedder.ff.net.2", 160),
    ):
        limit = (6 / (192 + fan_in)) ** 0.5
        assert 0.99 * limit < named[f"{name}.weight"].abs().max() <= limit
    assert not named["condition_embedder.image_embedder.pos_embed"].any()
    assert named["patch_embedding.weight"].abs().max() <= (6 / (192 + 16 * 4)) ** 0.5
    assert named["condition_embedder.text_embedder.linear_1.weight"].std().item() == pytest.approx(
        0.02, rel=0.03
    )
    assert named["blocks.0.scale_shift_table"].std().item() == pytest.approx(192**-0.5, rel=0.1)
    assert not torch.equal(to_q, named["blocks.0.attn1.to_k.weight"])


def test_a_seed_is_one_network_and_another_seed_another(tiny: WanTransformerSpec) -> None:
    weights = []
    for seed in (1, 1, 2):
        network = mm_models.build(tiny, "cpu")
        mm_models.initialize(network, seed)
        weights.append(network.get_parameter("blocks.1.ffn.net.0.proj.weight"))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_built_network_is_nan_until_it_is_filled(tiny: WanTransformerSpec) -> None:
    network = mm_models.build(tiny, "cpu", torch.bfloat16)
    assert all(parameter.isnan().all() for parameter in network.parameters())
    for name, parameter in network.named_parameters():
        wide = any(part in name for part in ("norm", "scale_shift_table", "time_embedder"))
        assert parameter.dtype == (torch.float32 if wide else torch.bfloat16), name
    assert {buffer.dtype for buffer in network.buffers()} == {torch.float32}


def _check_sharded(rank: int, spec: WanTransformerSpec) -> None:
    expected = mm_models.build(spec, "cpu")
    mm_models.initialize(expected, seed=3)
    network = sharded(spec)
    mm_models.initialize(network, seed=3)
    network.init_buffers("cpu")  # type: ignore[operator]
    for (name, whole), part in zip(expected.named_parameters(), network.parameters(), strict=True):
        assert isinstance(part, DTensor)
        assert torch.equal(part.full_tensor(), whole), name
    for whole, part in zip(expected.buffers(), network.buffers(), strict=True):
        assert torch.equal(part, whole)
    weight = torch.randn(expected.get_parameter("proj_out.weight").shape, generator=generator("output"))
    with torch.no_grad():
        expected.get_parameter("proj_out.weight").copy_(weight)
        copy_whole(weight, network.get_parameter("proj_out.weight"))
    torch.testing.assert_close(network(*arguments(spec)), expected(*arguments(spec)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, IMAGE_BRANCH])
def test_shards_hold_their_part_of_the_same_first_weights(
    tiny: WanTransformerSpec, run_ranks: Callable[..., None], changes: dict[str, object]
) -> None:
    run_ranks(_check_sharded, attrs.evolve(tiny, **changes))


def _check_mixed_precision(rank: int, spec: WanTransformerSpec) -> None:
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    network = sharded(spec, policy)
    mm_models.initialize(network, seed=3)
    network.init_buffers("cpu")  # type: ignore[operator]
    velocity = network(*arguments(spec))
    assert velocity.dtype == torch.float32
    (velocity - torch.ones_like(velocity)).square().mean().backward()
    gradient = network.get_parameter("proj_out.weight").grad
    assert gradient is not None and gradient.dtype == torch.float32
    assert gradient.full_tensor().abs().max() > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("changes", [{}, IMAGE_BRANCH])
def test_bfloat16_compute_over_float32_shards(
    tiny: WanTransformerSpec, run_ranks: Callable[..., None], changes: dict[str, object]
) -> None:
    run_ranks(_check_mixed_precision, attrs.evolve(tiny, **changes))


def test_latents_that_patches_do_not_divide_are_refused(tiny: WanTransformerSpec) -> None:
    network = mm_models.build(tiny, "cpu")
    with pytest.raises(UserError) as caught:
        network(torch.zeros(1, 4, 40, 3, 6), torch.zeros(1), torch.zeros(1, 2, 10))
    assert [problem.message for problem in caught.value.problems] == [
        "latents' frames has 40 tokens, the rotary table 32",
        "latents' height must be a multiple of the patch's 2, got 3",
    ]


@spec("test-dense-model")
class DenseSpec(ModelSpec):
    """A network that only this test knows."""

    width: int = 3
    """Features."""


class Dense(nn.Module):
    """One linear layer."""

    def __init__(self, spec: DenseSpec, ops: Ops) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.width, spec.width)

    def init_buffers(self, device: torch.device | str) -> None:
        """Has none."""

    def draw(self, name: str, shape: tuple[int, ...], draws: torch.Generator) -> torch.Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=draws)


def test_a_network_of_ones_own_joins_by_one_call() -> None:
    with pytest.raises(UserError, match=r"no network is installed for 'test-dense-model'.*wan-transformer"):
        mm_models.build(DenseSpec())
    mm_models.register_network("test-dense-model", Dense)
    network = mm_models.build(DenseSpec(width=5), "cpu")
    mm_models.initialize(network, seed=0)
    expected = torch.randn(5, 5, generator=generator(0, "linear.weight"))
    assert torch.equal(network.get_parameter("linear.weight"), expected)
    with pytest.raises(
        UserError, match="float32_residual is true, but the network of 'test-dense-model' has no such stream"
    ):
        mm_models.build(DenseSpec(), float32_residual=True)


@pytest.mark.parametrize(
    ("build", "known"),
    [
        (mm_models.build_autoencoder, "dct-autoencoder, wan-autoencoder"),
        (mm_models.build_text_encoder, "hashed-text-encoder, umt5-text-encoder"),
        (mm_models.build_image_encoder, "clip-image-encoder"),
    ],
)
def test_encoders_that_nothing_builds_are_refused(build: Callable[..., object], known: str) -> None:
    with pytest.raises(UserError, match=f"is installed for 'random-weights'; installed: {known}"):
        build(RandomWeights())


def test_an_autoencoder_of_ones_own_joins_by_one_call() -> None:
    # Here, since a class that is known at collection is listed in the messages that other tests expect.
    @spec("test-flat-autoencoder")
    class FlatSpec(AutoencoderSpec):
        """An autoencoder that only this test knows."""

    register("mm.autoencoders", "test-flat-autoencoder", lambda *arguments: arguments)
    assert mm_models.build_autoencoder(FlatSpec(), "cpu") == (FlatSpec(), "cpu", None)
