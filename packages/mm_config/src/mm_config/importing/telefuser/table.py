"""Every field of TeleFuser's Wan pipelines and what becomes of it."""

from __future__ import annotations

from functools import cache

from mm_config.importing.telefuser.rows import Row, derived, group, mapped, of, outside, refused
from mm_config.importing.telefuser.runtime_rows import DTYPES, RUNTIME_ROWS

DUMP = "the dump"
MODELS = "layer1_model_definition"
CALL = "__call__"
MODEL = "an entry of layer1_model_definition.models"

_METRICS = outside("enable_metrics", bool, False, "each run records its times")
_SHARED = (
    group("vae_config", "ModelRuntimeConfig", "autoencoder"),
    group("text_encoding_config", "ModelRuntimeConfig", "text_encoder"),
    group("vfi_config", "ModelRuntimeConfig", optional=True),
    derived(
        "enable_denoising_parallel",
        bool,
        False,
        "on where the degrees make more than one rank; where it is off, TeleFuser leaves the degrees unread",
        "runtime.parallel",
    ),
    mapped(
        "enable_vae_parallel",
        bool,
        False,
        "runtime.parallel.autoencoder",
        "ranks share tiles, so tiling is on",
    ),
    refused("enable_vfi", bool, False, "no network interpolates frames here; ask for the frames themselves"),
    _METRICS,
)
_UNIPC_EULER = "sampler.solver, sampler.sigmas"

PIPELINE_ROWS = (
    *of(
        "Wan21VideoPipelineConfig",
        group("dit_config", "ModelRuntimeConfig"),
        group("clip_config", "ModelRuntimeConfig", "image_encoder"),
        mapped(
            "sample_solver",
            ("euler", "unipc"),
            "euler",
            _UNIPC_EULER,
            "euler with full_range, unipc with wan_official",
        ),
        derived("enable_clip_stage", bool, False, "on for networks with an image branch", "image_encoder"),
        *_SHARED,
    ),
    *of(
        "Wan22VideoPipelineConfig",
        group("dit_high_config", "ModelRuntimeConfig"),
        group("dit_low_config", "ModelRuntimeConfig"),
        mapped(
            "sample_solver",
            ("euler", "mix-euler", "unipc"),
            "euler",
            _UNIPC_EULER,
            "as for Wan2.1; mix-euler, with a table of its own, is refused",
        ),
        refused("enable_vae_ray", bool, False, "there is no Ray; ranks share the autoencoder's tiles"),
        *_SHARED,
    ),
    *of(
        "Wan22TI2VPipelineConfig",
        group("dit_config", "ModelRuntimeConfig"),
        mapped(
            "sample_solver",
            ("unipc", "dpm++"),
            "unipc",
            _UNIPC_EULER,
            "dpm++ builds the Euler sampler there, so it is euler with full_range",
        ),
        *_SHARED,
    ),
)

ENVELOPE_ROWS = of(
    DUMP,
    derived("version", str, "1.0", "the only one"),
    outside("timestamp", str, None, "the wall clock when the dump was written"),
    derived("pipeline_type", str, None, "the family follows from it and from the models", "model"),
    mapped("device", str, "cuda", "runtime.device", "a device's number is left to the ranks"),
    derived("torch_dtype", DTYPES, "bfloat16", "the pipeline's latents; ours are always float32"),
    group("layer1_model_definition", MODELS),
    group("layer2_inference_config", "the pipeline's configuration class"),
)

MODEL_ROWS = of(MODELS, group("models", MODEL, many=True)) + of(
    MODEL,
    derived("name", str, "", "says which network it is"),
    mapped(
        "path",
        str,
        None,
        "high_noise, low_noise, autoencoder.weights, text_encoder.weights, image_encoder.weights",
        "a logical name; the path becomes a location",
        optional=True,
    ),
    derived("class", str, "", "follows from the architecture; TAEHV, a small decoder, is none of ours"),
)

_NO_DUMP = "in no dump: the family's value"
CALL_ROWS = of(
    CALL,
    outside("prompt", str, None, "a request's: samples.prompts, or GenerationRequest"),
    mapped("negative_prompt", str, "", "negative_prompt", _NO_DUMP),
    outside("seed", int, None, "a request's: samples.seeds, or GenerationRequest"),
    mapped("height", int, 480, "height", _NO_DUMP),
    mapped("width", int, 832, "width", _NO_DUMP),
    mapped("num_frames", int, 81, "num_frames", f"{_NO_DUMP}; TeleFuser rounds to (n + 2) // 4 * 4 + 1"),
    mapped("num_inference_steps", int, 50, "sampler.steps", _NO_DUMP),
    mapped("sigma_shift", float, 5.0, "sampler.shift", _NO_DUMP),
    mapped(
        "cfg_scale",
        float,
        None,
        "sampler.guidance_high_noise, sampler.guidance_low_noise",
        f"of a single network; {_NO_DUMP}",
    ),
    mapped("cfg_scale_high", float, 5.0, "sampler.guidance_high_noise", _NO_DUMP),
    mapped("cfg_scale_low", float, 5.0, "sampler.guidance_low_noise", _NO_DUMP),
    mapped("boundary", float, 0.875, "boundary", _NO_DUMP),
    mapped("tiled", bool, False, "autoencoder.tiling", f"{_NO_DUMP}; on with enable_vae_parallel"),
    mapped(
        "tile_size", int, (30, 52), "autoencoder.tile_size", f"{_NO_DUMP}; latent cells there, pixels here"
    ),
    mapped(
        "tile_stride",
        int,
        (15, 26),
        "autoencoder.tile_stride",
        f"{_NO_DUMP}; latent cells there, pixels here",
    ),
    mapped("target_fps", int, None, "fps", f"{_NO_DUMP}; null takes the model's"),
    outside("latent_data", None, None, "a request's: GenerationRequest.strength is for a given video"),
    outside("rand_device", str, None, "noise is drawn alike on every device"),
)

ROWS: tuple[Row, ...] = (*ENVELOPE_ROWS, *MODEL_ROWS, *PIPELINE_ROWS, *CALL_ROWS, *RUNTIME_ROWS)


@cache
def rows_of(owner: str) -> dict[str, Row]:
    """The rows of one class by the field's name."""
    return {row.name: row for row in ROWS if row.owner == owner}
