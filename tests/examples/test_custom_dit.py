"""The example model computes what the tutorial's code computes, which stands here with diffusers' parts."""

import math
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.transformers.transformer_wan import (
    WanAttention,
    WanAttnProcessor,
    WanRotaryPosEmbed,
    WanTimeTextImageEmbedding,
)
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import mm_models
from examples.custom_dit.network import CustomDiT
from examples.custom_dit.spec import CustomDiTSpec
from experiments import custom_dit
from mm_config import dump
from mm_config.families.tiny import TINY
from mm_config.rules import check
from mm_config.rules.carried_out import beyond
from mm_config.schema.decorator import spec
from mm_config.schema.errors import SpecError
from mm_config.schema.fields import field
from mm_config.specs.weights import RandomWeights
from mm_models.seeding import generator

SMALL = CustomDiTSpec(
    num_layers=2,
    num_attention_heads=3,
    head_dim=14,
    ffn_dim=50,
    in_channels=4,
    out_channels=6,
    patch_size=(1, 2, 3),
    text_dim=10,
    freq_dim=16,
    rope_max_seq_len=32,
)


class TutorialBlock(nn.Module):
    """The tutorial's `CustomDiTBlock`."""

    def __init__(self, hidden_size: int, num_heads: int, head_dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size)
        self.attn1 = WanAttention(
            hidden_size, num_heads, head_dim, cross_attention_dim_head=None, processor=WanAttnProcessor()
        )
        self.attn2 = WanAttention(
            hidden_size,
            num_heads,
            head_dim,
            cross_attention_dim_head=hidden_size // num_heads,
            processor=WanAttnProcessor(),
        )
        self.ffn = FeedForward(hidden_size, inner_dim=ffn_dim, activation_fn="gelu-approximate")
        self.norm3 = nn.LayerNorm(hidden_size)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, hidden_size) / hidden_size**0.5)

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary_emb: Tensor
    ) -> Tensor:
        """One block."""
        shift_msa, scale_msa, gate_msa, c_shift_msa, c_scale_msa, c_gate_msa = (
            self.scale_shift_table.to(temb.device) + temb
        ).chunk(6, dim=1)
        norm_hidden_states = self.norm1(hidden_states) * (1 + scale_msa) + shift_msa
        attn_output = self.attn1(norm_hidden_states, rotary_emb=rotary_emb)
        hidden_states = hidden_states + attn_output * gate_msa
        attn_output = self.attn2(norm_hidden_states, encoder_hidden_states=encoder_hidden_states)
        hidden_states = hidden_states + attn_output
        norm_hidden_states = self.norm3(hidden_states) * (1 + c_scale_msa) + c_shift_msa
        ff_output = self.ffn(norm_hidden_states)
        return hidden_states + ff_output * c_gate_msa


class TutorialDiT(nn.Module):
    """The tutorial's `CustomDiT`."""

    def __init__(self, spec: CustomDiTSpec) -> None:
        super().__init__()
        hidden_size = spec.num_attention_heads * spec.head_dim
        self.patch_size = spec.patch_size
        self.rope = WanRotaryPosEmbed(spec.head_dim, spec.patch_size, spec.rope_max_seq_len)
        self.patch_embedding = nn.Conv3d(
            spec.in_channels, hidden_size, kernel_size=spec.patch_size, stride=spec.patch_size
        )
        self.condition_embedder = WanTimeTextImageEmbedding(
            dim=hidden_size,
            time_freq_dim=spec.freq_dim,
            time_proj_dim=hidden_size * 6,
            text_embed_dim=spec.text_dim,
        )
        self.blocks = nn.ModuleList(
            [
                TutorialBlock(hidden_size, spec.num_attention_heads, spec.head_dim, spec.ffn_dim)
                for _ in range(spec.num_layers)
            ]
        )
        self.norm_out = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.proj_out = nn.Linear(hidden_size, spec.out_channels * math.prod(spec.patch_size))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, hidden_size) / hidden_size**0.5)

    def forward(self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """The velocity."""
        temb, timestep_proj, encoder_hidden_states, _ = self.condition_embedder(
            timestep=timestep, encoder_hidden_states=encoder_hidden_states.squeeze(1)
        )
        timestep_proj = timestep_proj.unflatten(1, (6, -1))
        rotary_emb = self.rope(hidden_states)
        hidden_states = self.patch_embedding(hidden_states.to(temb.dtype))
        _, _, frames, height, width = hidden_states.shape
        hidden_states = rearrange(hidden_states, "b c f h w -> b (f h w) c").contiguous()
        for block in self.blocks:
            hidden_states = block(
                hidden_states=hidden_states,
                encoder_hidden_states=encoder_hidden_states,
                temb=timestep_proj,
                rotary_emb=rotary_emb,
            )
        shift, scale = (self.scale_shift_table.to(temb.device) + temb.unsqueeze(1)).chunk(2, dim=1)
        hidden_states = self.norm_out(hidden_states) * (1 + scale) + shift
        return rearrange(
            self.proj_out(hidden_states),
            "b (f h w) (x y z c) -> b c (f x) (h y) (w z)",
            f=frames,
            h=height,
            w=width,
            x=self.patch_size[0],
            y=self.patch_size[1],
            z=self.patch_size[2],
        )


def pair(spec: CustomDiTSpec) -> tuple[nn.Module, nn.Module]:
    """The tutorial's network with random values in every parameter, and ours with the same."""
    theirs = TutorialDiT(spec)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 12
            draws = torch.randn(parameter.shape, generator=generator("custom_dit", name))
            parameter.copy_(draws / fan_in**0.5 + float("norm" in name and name.endswith("weight")))
    ours = mm_models.build(spec, "cpu")
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def inputs(spec: CustomDiTSpec) -> tuple[Tensor, Tensor, Tensor]:
    draws = generator("custom_dit inputs")
    latents = torch.randn(2, spec.in_channels, 3, 4, 6, generator=draws)
    return latents, torch.tensor([990.0, 3.5]), torch.randn(2, 5, spec.text_dim, generator=draws)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def test_values_and_gradients_are_those_of_the_tutorial() -> None:
    theirs, ours = pair(SMALL)
    arguments = [one.requires_grad_(one.ndim > 1) for one in inputs(SMALL)]
    expected, actual = theirs(*arguments), ours(*arguments)
    assert actual.shape == expected.shape == (2, 6, 3, 4, 6)
    assert relative_error(actual, expected) <= 1e-5
    direction = torch.randn(expected.shape, generator=generator("direction"))
    named = [name for name, _ in theirs.named_parameters()]
    assert [name for name, _ in ours.named_parameters()] == named
    given = [arguments[0], arguments[2]]
    theirs_of = torch.autograd.grad(expected, [*theirs.parameters(), *given], direction)
    ours_of = torch.autograd.grad(actual, [*ours.parameters(), *given], direction)
    for name, mine, other in zip([*named, "latents", "text"], ours_of, theirs_of, strict=True):
        assert other.any(), name
        assert relative_error(mine, other) <= 1e-4, name


@torch.no_grad()
def test_bfloat16_is_as_near_to_float32_as_the_tutorial() -> None:
    theirs, ours = pair(SMALL)
    arguments = inputs(SMALL)
    exact = theirs(*arguments)
    lower = [one.bfloat16() if one.ndim > 1 else one for one in arguments]
    expected = theirs.bfloat16()(*lower).float()
    rounded = mm_models.build(SMALL, "cpu", torch.bfloat16)
    rounded.load_state_dict(ours.state_dict())
    actual = rounded(*lower)
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - exact).norm() <= 1.05 * (expected - exact).norm()


def test_the_spec_knows_every_parameter() -> None:
    network = mm_models.build(SMALL, "meta")
    built = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert list(built.items()) == list(SMALL.parameter_shapes().items())
    assert SMALL.parameter_count() == sum(math.prod(shape) for shape in built.values())


def test_flops_are_exactly_the_matrix_products() -> None:
    network = mm_models.build(SMALL, "cpu")
    latents, timestep, text = inputs(SMALL)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        network(latents[:1], timestep[:1], text[:1])
    assert SMALL.forward_flops((3, 4, 6), 5) == counter.get_total_flops()


def test_defaults_are_those_of_the_tutorial_and_its_json_is_a_spec() -> None:
    assert CustomDiTSpec().hidden_size == 5120
    json = CustomDiTSpec(num_layers=30, num_attention_heads=12, ffn_dim=8960)
    with torch.device("meta"):
        theirs = TutorialDiT(json)
    assert json.parameter_count() == sum(parameter.numel() for parameter in theirs.parameters())


def test_first_weights_are_pytorch_s() -> None:
    model = CustomDiTSpec(num_layers=1, num_attention_heads=4, head_dim=32, ffn_dim=384, text_dim=96)
    network = mm_models.build(model, "cpu")
    mm_models.initialize(network, seed=1)
    torch.manual_seed(0)
    theirs = dict(TutorialDiT(model).named_parameters())
    for name, parameter in network.named_parameters():
        if parameter.numel() > 100:
            expected = theirs[name].std().item()
            assert parameter.std().item() == pytest.approx(expected, rel=0.2, abs=1e-12), name
            assert parameter.mean().item() == pytest.approx(theirs[name].mean().item(), abs=0.05), name


def test_an_odd_head_and_latents_past_the_rotary_table_are_refused_by_name() -> None:
    odd = CustomDiTSpec(head_dim=13, freq_dim=17)
    assert [problem.path for problem in odd.problems()] == ["head_dim", "freq_dim"]
    short = CustomDiTSpec(in_channels=9, out_channels=9, text_dim=64, rope_max_seq_len=2)
    infer = attrs.evolve(TINY, model=short, boundary=None).infer(
        high_noise=RandomWeights(), num_frames=5, height=64, width=64
    )
    with pytest.raises(SpecError, match=r"spec\.height: makes 4 tokens along this axis"):
        check(infer)


def test_the_network_is_found_by_its_spec_s_tag() -> None:
    assert isinstance(mm_models.build(SMALL), CustomDiT)


@spec("test-grown-dit")
class GrownSpec(CustomDiTSpec):
    """A model of one's own that has got a field after its birth."""

    sinks: int = field(default=0, neutral=0, ge=0)
    """Something that only its network knows."""


def test_fields_that_a_model_of_one_s_own_gets_later_are_its_network_s_business() -> None:
    grown = attrs.evolve(
        custom_dit.SPEC, model=GrownSpec(in_channels=9, out_channels=9, text_dim=64, sinks=4)
    )
    assert not list(beyond(grown, ("recompute",), "training"))
    ours = attrs.evolve(grown, frozen=("*.bias",))
    assert [problem.path for problem in beyond(ours, ("recompute",), "training")] == ["spec.frozen"]


def test_specs_that_can_t_be_loaded_are_one_line_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "absent_dit-1.0.dist-info").mkdir()
    (tmp_path / "absent_dit-1.0.dist-info" / "METADATA").write_text("Name: absent-dit\nVersion: 1.0\n")
    (tmp_path / "absent_dit-1.0.dist-info" / "entry_points.txt").write_text(
        "[mm.specs]\nd = absent_dit.spec\n"
    )
    dump(custom_dit.SPEC, tmp_path / "spec.json")
    done = subprocess.run(
        [sys.executable, "-m", "mm_config", "hash", str(tmp_path / "spec.json")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "the specs of absent_dit.spec, declared under mm.specs, can't be loaded" in done.stderr
    assert "Traceback" not in done.stderr
