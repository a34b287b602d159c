"""Rows of model.json, and of the parts that inference_model.json shares with it."""

from __future__ import annotations

from mm_config.importing.mindspeed.words import DTYPE, LATENT_MODE
from mm_config.importing.rows import Row, dead, derived, group, mapped, misspelt, of_kind, refused
from mm_config.importing.values import COUNT, numbers, real, switch, whole

_PP = "splits blocks over pipeline ranks; without a pipeline nothing reads it"
_FPDT = "of FPDT, which is off"
_SAMPLING = "of the schedule's own sampling, which training never does"
_OTHERS = "of Open-Sora Plan's networks; Wan's training does not read it"
_KERNEL = "names a kernel of the same norm; runtime chooses kernels here"

NETWORK_SIZES: tuple[Row, ...] = (
    mapped("predictor.patch_size", "model.patch_size", numbers(3), default=(1, 2, 2)),
    mapped("predictor.in_dim", "model.in_channels", whole, default=16),
    mapped("predictor.out_dim", "model.out_channels", whole, default=16),
    mapped("predictor.hidden_size", "model.hidden_size", whole, default=2048),
    mapped("predictor.ffn_dim", "model.ffn_dim", whole, default=8192),
    mapped("predictor.freq_dim", "model.freq_dim", whole, default=256),
    mapped("predictor.text_dim", "model.text_dim", whole, default=4096),
    mapped("predictor.num_heads", "model.num_attention_heads", whole, default=16),
    mapped("predictor.num_layers", "model.num_layers", whole, default=32),
    mapped("predictor.eps", "model.eps", real, default=1e-6),
    mapped("predictor.max_seq_len", "model.rope_max_seq_len", whole, default=1024),
)
"""What `WanDiT` is built from, with its constructor's defaults."""

_NETWORK: tuple[Row, ...] = (
    *group("predictor"),
    derived("predictor.model_id", "the spec's class is Wan's transformer", "wandit", "custom_dit"),
    mapped("predictor.model_type", "model.conditioning", None, default="t2v"),
    *NETWORK_SIZES,
    mapped("predictor.img_dim", "model.image_dim", whole, when="image_branch", default=1280),
    dead("predictor.text_len", "only sizes the buffers between pipeline ranks"),
    derived("predictor.qk_norm", "Wan's attention always normalises queries and keys", True),
    derived("predictor.qk_norm_type", "Wan's queries and keys have RMSNorm", "rmsnorm"),
    dead("predictor.cross_attn_norm", "`norm3` is always an affine LayerNorm, as here"),
    derived("predictor.use_fused_rmsnorm", _KERNEL, True, False),
    derived("predictor.fp32_calculate", "norms and modulation are always float32 here", True, False),
    derived("predictor.fa_layout", "orders the axes of attention's kernel", "bnsd", "sbh", "tnd"),
    refused("predictor.from_pretrained", "weights are named by --load"),
    dead("predictor.vae_scale_factor", "only sizes the buffers between pipeline ranks"),
    derived(
        "predictor.clip_token_len", "the image encoder makes 257 tokens of a frame", 257, when="image_branch"
    ),
    dead("predictor.pipeline_num_layers", _PP),
    dead("predictor.attention_async_offload", "only --recompute-skip-core-attention would look at it"),
    derived(
        "predictor.seperated_timestep",
        "the tokens of a clean first frame have timestep 0 where the conditioning gives one",
        True,
        False,
    ),
    misspelt(
        "predictor.separated_timestep",
        "predictor.seperated_timestep",
        "MindSpeed-MM's own key has the typing error, and this one is swallowed",
    ),
    derived("predictor.FPDT", "attention in chunks with offload is not in our specs", False),
    dead("predictor.FPDT_chunk_number", _FPDT),
    dead("predictor.FPDT_with_offload", _FPDT),
)

_AUTOENCODER: tuple[Row, ...] = (
    *group("ae"),
    derived("ae.model_id", "the spec's class is Wan's autoencoder", "wan_video_vae"),
    mapped("ae.from_pretrained", "--location", None),
    mapped("ae.dtype", "autoencoder.dtype", DTYPE),
    mapped("ae.enable_tiling", "autoencoder.tiling", switch, default=False),
    misspelt("ae.use_tiling", "ae.enable_tiling", "other autoencoders read it, Wan's does not"),
    derived("ae.norm_latents", "latents are always normalised", True),
    derived(
        "ae.norm_mode",
        "latents are normalised by the mean and deviation of each channel",
        "channel_specified_shift_scale",
    ),
    mapped("ae.do_sample", "autoencoder.latent_mode", LATENT_MODE, default=True),
)

_TEXT_ENCODER: tuple[Row, ...] = (
    *group("text_encoder"),
    derived("text_encoder.model_id", "the spec's class is UMT5's encoder", "UMT5"),
    dead("text_encoder.hub_backend", "is removed and never checked"),
    mapped("text_encoder.from_pretrained", "--location", None),
    mapped("text_encoder.dtype", "text_encoder.dtype", DTYPE),
    derived("text_encoder.use_attention_mask", "padding is always masked", True),
    derived("text_encoder.ucg_rate", "captions are dropped as data.caption_dropout says", None),
    derived("text_encoder.output_key", "Wan reads the last hidden state", "last_hidden_state"),
    derived("text_encoder.hidden_state_skip_layer", "Wan reads the last hidden state", None),
    dead("text_encoder.load_in_8bit", "is removed and not passed on"),
)

SHARED: tuple[Row, ...] = (*_NETWORK, *_AUTOENCODER, *_TEXT_ENCODER)
"""Keys that training and inference files have in common."""

_DIFFUSION: tuple[Row, ...] = (
    *group("diffusion"),
    derived("diffusion.model_id", "the spec's class is this schedule", "wan_flow_match_scheduler"),
    mapped("diffusion.num_train_timesteps", "diffusion.num_train_timesteps", COUNT, default=1000),
    misspelt(
        "diffusion.num_train_steps",
        "diffusion.num_train_timesteps",
        "the schedule swallows it and keeps 1000 points",
    ),
    mapped("diffusion.shift", "diffusion.shift", real, default=3.0),
    misspelt("diffusion.flow_shift", "diffusion.shift", "the schedule swallows it and keeps shift 3"),
    mapped("diffusion.sigma_max", "diffusion.sigma_max", real),
    mapped("diffusion.sigma_min", "diffusion.sigma_min", real, default=0.003 / 1.002),
    mapped("diffusion.extra_one_step", "diffusion.drop_last", switch, default=False),
    derived("diffusion.inverse_timesteps", "noise falls along the schedule", False),
    derived("diffusion.reverse_sigmas", "noise falls along the schedule", False),
    dead("diffusion.num_inference_timesteps", _SAMPLING),
    dead("diffusion.guidance_scale", _SAMPLING),
    mapped("diffusion.min_timestep_boundary", "expert, diffusion.boundary", None, default=0.0),
    mapped("diffusion.max_timestep_boundary", "expert, diffusion.boundary", None, default=1.0),
)

_CONDITION: tuple[Row, ...] = (
    *group("ae.i2v_processor"),
    derived(
        "ae.i2v_processor.processor_id",
        "the given frames are prepared as the network's conditioning says",
        "wan_i2v_processor",
        "wan_ti2v_processor",
    ),
    mapped("ae.i2v_processor.image_encoder", "--location", None, when="image_branch"),
    derived(
        "ae.i2v_processor.i2v_vae_encode_tiling",
        "given frames are encoded as clips are, by autoencoder.tiling",
        "auto",
        True,
        False,
    ),
    misspelt(
        "ae.i2v_processor.i2v_vae_encod_tiling",
        "ae.i2v_processor.i2v_vae_encode_tiling",
        'MindSpeed-MM never read it, "auto" was in force; here given frames follow autoencoder.tiling',
    ),
)


def _pixels(value: object) -> tuple[int, int]:
    """A tile's size in latent cells as one in pixels."""
    height, width = numbers(2)(value)
    return 8 * height, 8 * width


TILES: tuple[Row, ...] = (
    *group("ae.tiling_param"),
    mapped("ae.tiling_param.tile_sample_min_height", "autoencoder.tile_size.0", whole, when="tiling"),
    mapped("ae.tiling_param.tile_sample_min_width", "autoencoder.tile_size.1", whole, when="tiling"),
    mapped("ae.tiling_param.tile_sample_stride_height", "autoencoder.tile_stride.0", whole, when="tiling"),
    mapped("ae.tiling_param.tile_sample_stride_width", "autoencoder.tile_stride.1", whole, when="tiling"),
    mapped("ae.tiling_param.tile_size", "autoencoder.tile_size", _pixels, when="tiling"),
    mapped("ae.tiling_param.tile_stride", "autoencoder.tile_stride", _pixels, when="tiling"),
)

_TOP: tuple[Row, ...] = (
    mapped("load_video_features", "data.precomputed.latents", None),
    mapped("load_text_features", "data.precomputed.text", None),
    derived("task", "follows from predictor.model_type", "t2v", "i2v"),
    mapped("encoder_offload_interval", "runtime.encode_ahead", COUNT, default=1),
    *group("dpo"),
    refused("dpo.histogram_path", "preference training is not in our specs"),
    refused("dpo.loss_beta", "preference training is not in our specs"),
    refused("dpo.weight_alpha", "preference training is not in our specs"),
    refused("dpo.weight_beta", "preference training is not in our specs"),
    *group("patch"),
    derived("patch.bridge_patch", "the released weights are loaded without a conversion", True, False),
    derived("patch.clip_grad_async", "the norm of the gradients never waits for the host here", True, False),
    derived(
        "patch.get_dist_model_load_from_pt",
        "weights that a run starts from and its checkpoints are different things here",
        True,
        False,
    ),
    derived("patch.muon_optimizer", "the optimizer is named by --optimizer", True, False),
    derived("patch.ae_float32", "the autoencoder's format is that of ae.dtype", False),
    derived("patch.infer_fa", "runtime chooses the kernels of attention here", True, False),
    derived("patch.use_fsdp1", "training is always sharded by FSDP2", False),
    derived("patch.scale_grad", "gradients are scaled by nothing but their norm", False),
    derived("patch.adaptive_clip_grad_norm", "gradients are clipped at optim.max_grad_norm", False),
    refused("patch.adaptive_clip_grad_norm.clip_grad_ema_decay", "gradients are clipped at a fixed norm"),
    derived("enable_encoder_dp", "which rank encodes a clip changes no value", True, False),
    derived("interleaved", "batches are moved to the device", False),
    derived("use_dynamic_dpcp", "the parallel degrees of a run never change", False),
    dead("max_cp_size", _OTHERS),
    dead("max_seq_size", _OTHERS),
    derived("lora_apply_modules", "adapters belong to the network, see lora.targets", (), ("predictor",)),
    derived("lora_mixed_training", "beside adapters the network's own weights never change", False),
)

_TRAINING_ONLY: tuple[Row, ...] = (
    dead("predictor.dtype", "training takes its format from --bf16 or the FSDP2 YAML's param_dtype"),
    # The developer guide's own class, built from diffusers' parts with diffusers' names.
    mapped("predictor.head_dim", "model.hidden_size", None, when="custom"),
    mapped("predictor.in_channels", "model.in_channels", whole, when="custom"),
    mapped("predictor.out_channels", "model.out_channels", whole, when="custom"),
    mapped("predictor.rope_max_seq_len", "model.rope_max_seq_len", whole, when="custom"),
)

MODEL: tuple[Row, ...] = of_kind(
    "model.json", *_TOP, *_DIFFUSION, *SHARED, *_TRAINING_ONLY, *_CONDITION, *TILES
)
