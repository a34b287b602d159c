"""The whole denoising loop against diffusers' `WanPipeline` with two transformers of equal weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import nn

import mm_models
from mm_config.specs.diffusion import Expert, SamplerSpec, SigmaTable
from mm_config.specs.infer import InferSpec
from mm_config.specs.wan import WanTransformerSpec
from mm_infer.denoise import denoise
from mm_models.seeding import generator


def awake_network(model: WanTransformerSpec, seed: int) -> nn.Module:
    """Freshly drawn, but with an output layer that is not zero."""
    network = mm_models.build(model, device="cpu")
    mm_models.initialize(network, seed)
    output: Any = network.proj_out
    nn.init.normal_(output.weight, std=0.3, generator=generator(seed, "output"))
    return network.requires_grad_(False)


def diffusers_twin(model: WanTransformerSpec, network: nn.Module) -> WanTransformer3DModel:
    twin = WanTransformer3DModel(
        patch_size=model.patch_size,
        num_attention_heads=model.num_attention_heads,
        attention_head_dim=model.attention_head_dim,
        in_channels=model.in_channels,
        out_channels=model.out_channels,
        text_dim=model.text_dim,
        freq_dim=model.freq_dim,
        ffn_dim=model.ffn_dim,
        num_layers=model.num_layers,
    )
    twin.load_state_dict(network.state_dict())
    return twin


@pytest.mark.parametrize(("shift", "steps"), [(5.0, 12), (12.0, 9)])
def test_latents_equal_those_of_wan_pipeline(random_spec: InferSpec, shift: float, steps: int):
    model = random_spec.model
    assert isinstance(model, WanTransformerSpec)
    high, low = awake_network(model, 1), awake_network(model, 2)
    random = generator("inputs")
    noise = torch.randn(2, model.in_channels, 5, 8, 8, generator=random)
    text, negative = (torch.randn(2, 16, model.text_dim, generator=random) for _ in range(2))
    official: Any = WanPipeline(
        tokenizer=None,  # type: ignore[arg-type]
        text_encoder=None,  # type: ignore[arg-type]
        vae=None,  # type: ignore[arg-type]
        scheduler=UniPCMultistepScheduler(  # type: ignore[arg-type]
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
        ),
        transformer=diffusers_twin(model, high),
        transformer_2=diffusers_twin(model, low),
        boundary_ratio=0.875,
    )
    official.set_progress_bar_config(disable=True)
    expected = official(
        prompt_embeds=text,
        negative_prompt_embeds=negative,
        latents=noise,
        height=64,
        width=64,
        num_frames=17,
        num_inference_steps=steps,
        guidance_scale=4.0,
        guidance_scale_2=3.0,
        output_type="latent",
    ).frames
    sampler = SamplerSpec(
        steps=steps,
        shift=shift,
        sigmas=SigmaTable.DIFFUSERS,
        guidance_high_noise=4.0,
        guidance_low_noise=3.0,
    )
    networks = {Expert.HIGH_NOISE: high, Expert.LOW_NOISE: low}
    made = denoise(noise, text, negative, networks, sampler, 0.875)
    assert float((made - noise).abs().max()) > 1
    assert float((made - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
