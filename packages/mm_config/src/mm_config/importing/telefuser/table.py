"""Every field of TeleFuser's Wan pipelines and what becomes of it."""

from __future__ import annotations

from mm_config.importing.rows import Row, of_kind
from mm_config.importing.telefuser.runtime_rows import (
    DTYPE,
    NO_RAY,
    RUNTIME_ROWS,
    derived,
    group,
    mapped,
    one_of,
    one_or_several,
    outside,
    several,
    words,
)
from mm_config.importing.values import real, switch, whole
from mm_config.schema.fields import ABSENT

DUMP = "the dump"
MODELS = "layer1_model_definition"
CALL = "__call__"
MODEL = "an entry of layer1_model_definition.models"
MIXED = one_of(("euler", "mix-euler", "unipc"))

_FAMILY = "in no dump: the family's value"
_SOLVER = "sampler.solver, sampler.sigmas"
_GUIDANCE = "sampler.guidance_high_noise, sampler.guidance_low_noise"
_WEIGHTS = "high_noise, low_noise, autoencoder.weights, text_encoder.weights, image_encoder.weights"
_TILES = f"{_FAMILY}; latent cells there, pixels here"
_RUNTIME = "ModelRuntimeConfig"
_SHARED = (
    group("vae_config", _RUNTIME, "autoencoder"),
    group("text_encoding_config", _RUNTIME, "text_encoder"),
    group("vfi_config", _RUNTIME),
    derived("enable_denoising_parallel", switch, False, "off leaves the degrees unread", "runtime.parallel"),
    mapped("enable_vae_parallel", switch, False, "runtime.parallel.autoencoder", "tiling is on, too"),
    derived("enable_vfi", switch, False, "no network interpolates frames here"),
    outside("enable_vae_ray", switch, False, f"{NO_RAY}: the ranks share the autoencoder's tiles"),
    outside("enable_metrics", switch, False, "each run records its times"),
)

ROWS: tuple[Row, ...] = (
    *of_kind(
        DUMP,
        derived("version", words, "1.0", "the only one"),
        outside("timestamp", words, ABSENT, "the wall clock when the dump was written"),
        derived("pipeline_type", words, ABSENT, "the family follows from it and from the models", "model"),
        mapped("device", words, "cuda", "runtime.device", "a device's number is left to the ranks"),
        derived("torch_dtype", DTYPE, "bfloat16", "the pipeline's latents; ours are always float32"),
        group("layer1_model_definition", MODELS),
        group("layer2_inference_config", "the pipeline's configuration class"),
    ),
    *of_kind(MODELS, group("models", MODEL, many=True)),
    *of_kind(
        MODEL,
        derived("name", words, "", "says which network it is"),
        mapped("path", one_or_several, None, _WEIGHTS, "a name, whose path is a location; one, or shards"),
        derived("class", words, "", "says it where the name does not; TAEHV is none of ours"),
    ),
    *of_kind(
        "Wan21VideoPipelineConfig",
        group("dit_config", _RUNTIME),
        group("clip_config", _RUNTIME, "image_encoder"),
        mapped("sample_solver", one_of(("euler", "unipc")), "euler", _SOLVER, "euler has full_range"),
        derived("enable_clip_stage", switch, False, "on for networks with an image branch", "image_encoder"),
        *_SHARED,
    ),
    *of_kind(
        "Wan22VideoPipelineConfig",
        group("dit_high_config", _RUNTIME),
        group("dit_low_config", _RUNTIME),
        mapped("sample_solver", MIXED, "euler", _SOLVER, "mix-euler, with a table of its own, is refused"),
        *_SHARED,
    ),
    *of_kind(
        "Wan22TI2VPipelineConfig",
        group("dit_config", _RUNTIME),
        mapped("sample_solver", one_of(("unipc", "dpm++")), "unipc", _SOLVER, "dpm++ is Euler there"),
        *_SHARED,
    ),
    *of_kind(
        CALL,
        outside("prompt", words, ABSENT, "a request's: samples.prompts, or GenerationRequest"),
        mapped("negative_prompt", words, "", "negative_prompt", _FAMILY),
        outside("seed", whole, ABSENT, "a request's: samples.seeds, or GenerationRequest"),
        mapped("height", whole, 480, "height", _FAMILY),
        mapped("width", whole, 832, "width", _FAMILY),
        mapped("num_frames", whole, 81, "num_frames", f"{_FAMILY}; there rounded to (n + 2) // 4 * 4 + 1"),
        mapped("num_inference_steps", whole, 50, "sampler.steps", _FAMILY),
        mapped("sigma_shift", real, 5.0, "sampler.shift", _FAMILY),
        mapped("cfg_scale", real, ABSENT, _GUIDANCE, f"of a single network; {_FAMILY}"),
        mapped("cfg_scale_high", real, 5.0, "sampler.guidance_high_noise", _FAMILY),
        mapped("cfg_scale_low", real, 5.0, "sampler.guidance_low_noise", _FAMILY),
        mapped("boundary", real, 0.875, "boundary", _FAMILY),
        mapped("tiled", switch, False, "autoencoder.tiling", f"{_FAMILY}; on with enable_vae_parallel"),
        mapped("tile_size", several(whole), (30, 52), "autoencoder.tile_size", _TILES),
        mapped("tile_stride", several(whole), (15, 26), "autoencoder.tile_stride", _TILES),
        mapped("target_fps", whole, None, "fps", f"{_FAMILY}; null takes the model's"),
        outside("latent_data", None, None, "a request's: a GenerationRequest with video and strength"),
        outside("rand_device", words, None, "noise is drawn alike on every device"),
    ),
    *RUNTIME_ROWS,
)
KINDS = dict.fromkeys(row.kind for row in ROWS)
CLASSES = {kind: {row.path: row for row in ROWS if row.kind == kind} for kind in KINDS}
"""The rows by class and field."""
