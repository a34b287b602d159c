"""Tiny releases in diffusers' layout, which both programs load: random weights, and every part is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from mm_config.specs import (
    Conditioning,
    Dtype,
    InferSpec,
    ReleasedWeights,
    SamplerSpec,
    Umt5TextEncoderSpec,
    WanAutoencoderSpec,
    WanTransformerSpec,
)
from tests.fidelity.schedulers import make_scheduler

NAME = "tiny/wan"
WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "circle", "square", "moving", "right"]
TEXT_ENCODER = Umt5TextEncoderSpec(
    weights=ReleasedWeights(name=NAME, subfolder="text_encoder"),
    text_dim=16,
    max_tokens=12,
    vocab_size=len(WORDS),
    num_layers=1,
    num_heads=2,
    d_kv=8,
    d_ff=24,
    dtype=Dtype.FLOAT32,
)
AUTOENCODER = WanAutoencoderSpec(
    weights=ReleasedWeights(name=NAME, subfolder="vae"), base_dim=8, dim_mult=(1, 1, 1, 1), num_res_blocks=1
)
AUTOENCODER_OF_22 = WanAutoencoderSpec(
    weights=ReleasedWeights(name=NAME, subfolder="vae"),
    latent_channels=48,
    spatial_stride=16,
    base_dim=8,
    num_res_blocks=1,
    patch_size=2,
    decoder_base_dim=8,
    is_residual=True,
)


def spec_of(sampler: SamplerSpec, boundary: float | None, *, expand: bool = False) -> InferSpec:
    """Our side of a release: Wan2.1's shape, two experts where there is a boundary, or TI2V-5B's."""
    autoencoder = AUTOENCODER_OF_22 if expand else AUTOENCODER
    channels = autoencoder.latent_channels
    return InferSpec(
        model=WanTransformerSpec(
            hidden_size=24,
            num_attention_heads=2,
            ffn_dim=32,
            num_layers=2,
            in_channels=channels,
            out_channels=channels,
            text_dim=16,
            freq_dim=16,
            rope_max_seq_len=32,
            conditioning=Conditioning.CLEAN_FIRST_FRAME if expand else Conditioning.TEXT,
        ),
        boundary=boundary,
        high_noise=ReleasedWeights(name=NAME, subfolder="transformer"),
        low_noise=None if boundary is None else ReleasedWeights(name=NAME, subfolder="transformer_2"),
        autoencoder=autoencoder,
        text_encoder=TEXT_ENCODER,
        sampler=sampler,
        num_frames=5,
        height=64 if expand else 32,
        width=96 if expand else 48,
    )


def make_release(folder: Path, spec: InferSpec) -> Any:
    """A `WanPipeline` of a spec's sizes, saved too; its weights are drawn from a fixed seed."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        experts = [transformer(spec) for _ in range(1 if spec.boundary is None else 2)]
        pipeline: Any = WanPipeline(
            tokenizer=tokenizer(),  # type: ignore[arg-type]
            text_encoder=text_encoder(),
            vae=autoencoder(spec),
            scheduler=make_scheduler(spec.sampler),
            transformer=experts[0],
            transformer_2=experts[1] if spec.boundary is not None else None,
            boundary_ratio=spec.boundary,
            expand_timesteps=spec.model.conditioning is Conditioning.CLEAN_FIRST_FRAME,
        )
    pipeline.save_pretrained(folder)
    for part in (pipeline.text_encoder, pipeline.vae, *experts):
        part.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def transformer(spec: InferSpec) -> WanTransformer3DModel:
    model = spec.model
    assert isinstance(model, WanTransformerSpec)
    return WanTransformer3DModel(
        patch_size=model.patch_size,
        num_attention_heads=model.num_attention_heads,
        attention_head_dim=model.attention_head_dim,
        in_channels=model.in_channels,
        out_channels=model.out_channels,
        text_dim=model.text_dim,
        freq_dim=model.freq_dim,
        ffn_dim=model.ffn_dim,
        num_layers=model.num_layers,
        rope_max_seq_len=model.rope_max_seq_len,
        image_dim=model.image_dim,
        added_kv_proj_dim=None if model.image_dim is None else model.hidden_size,
        pos_embed_seq_len=model.image_positions,
    )


def autoencoder(spec: InferSpec) -> AutoencoderKLWan:
    wanted = spec.autoencoder
    assert isinstance(wanted, WanAutoencoderSpec)
    statistics = torch.rand(2, wanted.latent_channels)
    return AutoencoderKLWan(
        base_dim=wanted.base_dim,
        decoder_base_dim=wanted.decoder_base_dim,
        z_dim=wanted.latent_channels,
        dim_mult=list(wanted.dim_mult),
        num_res_blocks=wanted.num_res_blocks,
        latents_mean=(statistics[0] - 0.5).tolist(),
        latents_std=(statistics[1] + 0.5).tolist(),
        is_residual=wanted.is_residual,
        in_channels=3 * wanted.patch_size**2,
        out_channels=3 * wanted.patch_size**2,
        patch_size=wanted.patch_size if wanted.patch_size > 1 else None,
        scale_factor_spatial=wanted.spatial_stride,
    )


def text_encoder() -> UMT5EncoderModel:
    return UMT5EncoderModel(
        UMT5Config(vocab_size=len(WORDS), d_model=16, num_layers=1, num_heads=2, d_kv=8, d_ff=24)
    )


def tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token, and each text ends with `</s>`."""
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    words.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
