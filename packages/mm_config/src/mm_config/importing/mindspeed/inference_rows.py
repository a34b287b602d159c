"""Rows of inference_model.json."""

from __future__ import annotations

from mm_config.importing.mindspeed.words import DEVICE, DTYPE, OFFLOAD, SOLVER
from mm_config.importing.rows import Row, dead, derived, group, mapped, misspelt, outside
from mm_config.importing.values import COUNT, numbers, real, whole

_BETAS = "flow matching has no betas: `use_flow_sigmas` replaces what they make"
_THRESHOLD = "of thresholding, which is off"
_WRAPPER = "of the wrapper's training losses"
_PLAN = "of Open-Sora Plan's pipeline"
_TABLE = "the table of noise levels is that of flow matching, sampler.sigmas"
_VIDEO = "of video to video, which is a request's"


_SAMPLER: tuple[Row, ...] = (
    *group("diffusion"),
    mapped("diffusion.model_id", "sampler.solver", SOLVER),
    mapped("diffusion.num_inference_steps", "sampler.steps", COUNT),
    mapped("diffusion.flow_shift", "sampler.shift", real, default=1.0),
    misspelt("diffusion.shift", "diffusion.flow_shift", "diffusers' samplers swallow it"),
    mapped("diffusion.guidance_scale", "sampler.guidance_high_noise, sampler.guidance_low_noise", None),
    dead("diffusion.num_train_steps", "is removed and not passed on; diffusers' 1000 hold"),
    dead("diffusion.beta_start", _BETAS),
    dead("diffusion.beta_end", _BETAS),
    dead("diffusion.beta_schedule", _BETAS),
    dead("diffusion.trained_betas", _BETAS),
    dead("diffusion.rescale_betas_zero_snr", _BETAS),
    derived("diffusion.prediction_type", "the network gives velocities", "flow_prediction"),
    mapped("diffusion.use_flow_sigmas", "sampler.sigmas", None),
    derived("diffusion.use_karras_sigmas", _TABLE, False),
    derived("diffusion.use_exponential_sigmas", _TABLE, False),
    derived("diffusion.use_beta_sigmas", _TABLE, False),
    derived("diffusion.final_sigmas_type", "the last step ends without noise", "zero"),
    dead("diffusion.timestep_spacing", "flow sigmas have their own table"),
    dead("diffusion.steps_offset", "flow sigmas have their own table"),
    derived("diffusion.solver_order", "both solvers are of order 2", 2),
    derived("diffusion.solver_type", "UniPC's predictor is bh2", "bh2", "midpoint"),
    derived("diffusion.solver_p", "UniPC has no other solver inside", None),
    derived("diffusion.predict_x0", "both solvers predict the clean latents", True),
    derived("diffusion.lower_order_final", "the last step is of order 1", True),
    derived("diffusion.disable_corrector", "UniPC corrects every step", ()),
    derived("diffusion.thresholding", "latents are never clipped", False),
    dead("diffusion.noise_offset", _WRAPPER),
    dead("diffusion.snr_gamma", _WRAPPER),
    dead("diffusion.t_sample_method", _WRAPPER),
    derived("diffusion.device", "the sampler works where the network does", "npu", "cuda"),
    dead("diffusion.dynamic_thresholding_ratio", _THRESHOLD),
    dead("diffusion.sample_max_value", _THRESHOLD),
)


_PIPELINE: tuple[Row, ...] = (
    derived("pipeline_class", "the spec is one of generation", "WanPipeline"),
    *group("pipeline_config"),
    mapped("pipeline_config.input_size", "num_frames, height, width", numbers(3)),
    mapped("pipeline_config.cpu_offload", "runtime.residency.experts, runtime.residency.encoders", OFFLOAD),
    derived(
        "pipeline_config.expand_timesteps",
        "tokens of a clean first frame have their own timestep where the conditioning gives one",
        True,
        False,
    ),
    derived("pipeline_config.vae_scale_factor_spatial", "is the autoencoder's spatial_stride", 8, 16),
    mapped("pipeline_config.seed", "samples.seeds.0", whole),
)

_TOP: tuple[Row, ...] = (
    mapped("boundary_ratio", "boundary", real),
    mapped("low_noise_predictor", "--location", None, when="experts"),
    mapped("device", "runtime.device", DEVICE),
    mapped("dtype", "dtype", DTYPE),
    derived("predictor.dtype", "networks compute in `dtype`", "bf16", "fp32", "float32"),
    mapped("fps", "fps", COUNT),
    derived("frame_interval", "the file's rate is fps // frame_interval", 1),
    derived("dual_image", "follows from predictor.model_type", True, False),
    outside("image", "a request's: `mm generate` takes it by --image"),
    *group("image_encoder"),
    mapped("image_encoder.from_pretrained", "--location", None, when="image_branch"),
    mapped("image_encoder.dtype", "image_encoder.dtype", DTYPE, when="image_branch"),
    mapped("prompt", "samples.prompts", None),
    mapped("save_path", "--runs-dir", None),
    outside("video", "a request's: `mm generate` takes it by --video"),
    mapped("num_frames", "num_frames", None, when="video"),
    outside("start_frame", _VIDEO, when="video"),
    outside("strength", _VIDEO, when="video"),
    derived("num_inference_videos_per_sample", "give `mm generate` several seeds", 1),
    dead("conditional_pixel_values_path", _PLAN),
    dead("mask_type", _PLAN),
    dead("crop_for_hw", _PLAN),
    dead("max_hxw", _PLAN),
    dead("use_prompt_preprocess", "Wan's pipeline always cleans its prompts"),
    *group("tokenizer"),
    derived("tokenizer.autotokenizer_name", "UMT5's tokenizer comes with its weights", "AutoTokenizer"),
    dead("tokenizer.hub_backend", "is removed and never checked"),
    mapped("tokenizer.from_pretrained", "--location", None),
)


INFERENCE: tuple[Row, ...] = (*_TOP, *_SAMPLER, *_PIPELINE)
"""Keys of an inference file beside those of its networks."""
