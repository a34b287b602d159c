"""Plans agree with the worked numbers of the published Wan models."""

import json

import pytest

from experiments import tiny, tiny_high
from mm_config import replace
from mm_config.errors import UserError
from mm_config.plan import plan
from mm_config.specs.data import DataSpec, ManifestSpec
from mm_config.specs.diffusion import FlowMatchingSpec, SamplerSpec, SigmaTable
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import Umt5TextEncoderSpec, WanAutoencoderSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import PrecisionSpec, ScheduleSpec, TrainSpec
from mm_config.specs.wan import WanTransformerSpec
from mm_config.specs.weights import RandomWeights

WAN_14B = WanTransformerSpec(hidden_size=5120, num_attention_heads=40, ffn_dim=13824, num_layers=40)
WAN_1_3B = WanTransformerSpec(hidden_size=1536, num_attention_heads=12, ffn_dim=8960, num_layers=30)


def training(model: WanTransformerSpec, height: int = 480, width: int = 832) -> TrainSpec:
    return TrainSpec(
        model=model,
        diffusion=FlowMatchingSpec(),
        autoencoder=WanAutoencoderSpec(weights=RandomWeights()),
        text_encoder=Umt5TextEncoderSpec(weights=RandomWeights()),
        data=DataSpec(dataset=ManifestSpec(name="x"), batch_size=8, height=height, width=width),
        schedule=ScheduleSpec(steps=10),
        precision=PrecisionSpec(compute=Dtype.BFLOAT16),
    )


@pytest.mark.parametrize(
    ("model", "height", "width", "tokens", "parameters", "petaflops"),
    [
        (WAN_14B, 480, 832, 32_760, 14.29e9, 1.678),
        (WAN_14B, 720, 1280, 75_600, 14.29e9, 6.523),
        (WAN_1_3B, 480, 832, 32_760, 1.42e9, 0.283),
        (WAN_1_3B, 720, 1280, 75_600, 1.42e9, 1.250),
    ],
)
def test_published_models_cost_what_was_worked_out(
    model: WanTransformerSpec, height: int, width: int, tokens: int, parameters: float, petaflops: float
) -> None:
    found = plan(training(model, height, width))
    assert found.tokens == tokens
    assert found.parameters == pytest.approx(parameters, rel=1e-3)
    assert found.forward_flops / 1e15 == pytest.approx(petaflops, abs=6e-4)
    assert found.step_flops == 3 * found.forward_flops * 8


def test_memory_of_training_14b_on_eight_ranks() -> None:
    found = dict(plan(training(WAN_14B), world_size=8).bytes_per_rank)
    assert found.keys() == {"parameters", "gradients", "optimizer", "activations"}
    states = found["parameters"] + found["gradients"] + found["optimizer"]
    assert states / 1e9 == pytest.approx(28.6, abs=0.05)
    assert found["activations"] / 1e9 == pytest.approx(341, abs=1)


def test_micro_batches_bound_the_activations() -> None:
    whole = dict(plan(training(WAN_14B)).bytes_per_rank)["activations"]
    micro = replace(training(WAN_14B), "runtime.micro_batch_size", 2)
    assert dict(plan(micro).bytes_per_rank)["activations"] * 4 == whole


def generation(boundary: float | None, **sampler: float) -> InferSpec:
    return InferSpec(
        model=WAN_14B,
        boundary=boundary,
        high_noise=RandomWeights(),
        low_noise=None if boundary is None else RandomWeights(),
        autoencoder=WanAutoencoderSpec(weights=RandomWeights()),
        text_encoder=Umt5TextEncoderSpec(weights=RandomWeights()),
        sampler=replace(SamplerSpec(), sampler),
        dtype=Dtype.BFLOAT16,
    )


def test_a_video_costs_two_passes_per_step_with_guidance() -> None:
    single = plan(generation(None, steps=40))
    assert single.step_flops == 80 * single.forward_flops
    assert plan(generation(None, steps=40, guidance_high_noise=1)).step_flops == 40 * single.forward_flops
    assert plan(generation(0.875, steps=40)).step_flops == 80 * single.forward_flops


@pytest.mark.parametrize("sigmas", list(SigmaTable))
def test_guidance_is_counted_per_expert(sigmas: SigmaTable) -> None:
    only_high = plan(replace(generation(0.875, steps=40, guidance_low_noise=1), "sampler.sigmas", sigmas))
    only_low = plan(replace(generation(0.875, steps=40, guidance_high_noise=1), "sampler.sigmas", sigmas))
    # At shift 12 the level 0.875 is where the unshifted table passes 0.3684: 26 of 40 steps are above.
    assert only_high.step_flops == (40 + 26) * only_high.forward_flops
    assert only_low.step_flops == (40 + 14) * only_low.forward_flops


def test_both_experts_are_held_at_inference() -> None:
    two, one = plan(generation(0.875)), plan(generation(None))
    assert dict(two.bytes_per_rank)["parameters"] == 2 * dict(one.bytes_per_rank)["parameters"]
    assert dict(one.bytes_per_rank)["parameters"] == 2 * one.parameters


def test_a_plan_is_plain_json() -> None:
    for root in (tiny.SPEC, tiny_high.SPEC):
        found = plan(root, world_size=2)
        read = json.loads(json.dumps(found.to_json()))
        assert read["bytes_per_rank"] == dict(found.bytes_per_rank)
        assert read["total_bytes_per_rank"] == sum(read["bytes_per_rank"].values())
        assert read["tokens"] == found.tokens and read["world_size"] == 2


def test_only_runs_have_plans() -> None:
    with pytest.raises(UserError, match="needs a training or an inference spec, got SamplerSpec"):
        plan(SamplerSpec())
