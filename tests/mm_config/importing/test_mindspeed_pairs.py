"""Keys of MindSpeed-MM and fields of ours, pair by pair, by hand.

Written from what MindSpeed-MM's classes do with each key and what they take where it is missing, not from our
tables. A pair is the files with one key changed, and the field that has to have the value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mm_config.importing.mindspeed.importer import import_files
from mm_config.schema.evolve import get
from tests.mm_config.importing.mindspeed_small import (
    DATA,
    FLAGS,
    GONE,
    INFERENCE,
    MODEL,
    changed,
    launch,
    written,
)

PRE = "dataset_param__preprocess_parameters__"
MODEL_PAIRS: list[tuple[str, Any, str, Any]] = [
    ("diffusion__shift", 7, "diffusion.shift", 7.0),
    ("diffusion__shift", GONE, "diffusion.shift", 3.0),
    ("diffusion__sigma_min", GONE, "diffusion.sigma_min", 0.003 / 1.002),
    ("diffusion__extra_one_step", GONE, "diffusion.drop_last", False),
    ("diffusion__num_train_timesteps", GONE, "diffusion.num_train_timesteps", 1000),
    ("diffusion__max_timestep_boundary", 0.417, "expert", "high_noise"),
    ("diffusion__max_timestep_boundary", 0.417, "diffusion.boundary", 0.875),
    ("diffusion__min_timestep_boundary", 0.417, "expert", "low_noise"),
    ("predictor__max_seq_len", GONE, "model.rope_max_seq_len", 1024),
    ("predictor__freq_dim", GONE, "model.freq_dim", 256),
    ("predictor__text_dim", GONE, "model.text_dim", 4096),
    ("predictor__eps", GONE, "model.eps", 1e-6),
    ("predictor__num_layers", GONE, "model.num_layers", 32),
    ("predictor__model_type", GONE, "model.conditioning", "text"),
    ("predictor__model_type", "ti2v", "model.conditioning", "clean_first_frame"),
    ("encoder_offload_interval", 8, "runtime.encode_ahead", 8),
    ("encoder_offload_interval", 8, "runtime.offload_encoders", True),
    ("encoder_offload_interval", GONE, "runtime.encode_ahead", 1),
    ("ae", {"model_id": "wan_video_vae"}, "autoencoder.latent_mode", "sample"),
    ("ae", {"model_id": "wan_video_vae", "do_sample": False}, "autoencoder.latent_mode", "mode"),
    ("ae", {"model_id": "wan_video_vae", "dtype": "bf16"}, "autoencoder.dtype", "bfloat16"),
    ("load_text_features", True, "data.precomputed.text", True),
]
DATA_PAIRS: list[tuple[str, Any, str, Any]] = [
    (PRE + "cfg", GONE, "data.caption_dropout", 0.1),
    (PRE + "cfg", 0.0, "data.caption_dropout", 0.0),
    (PRE + "num_frames", 81, "data.num_frames", 81),
    (PRE + "frame_interval", 3, "data.frame_interval", 3),
    (PRE + "auto_interval", True, "data.fps", 24.0),
    (PRE + "auto_interval", True, "data.frame_interval", None),
    (PRE + "speed_factor", GONE, "data.speed_factor", 1.0),
    (PRE + "min_num_frames", GONE, "data.min_num_frames", 29),
    (PRE + "min_num_frames", 6, "data.min_num_frames", 9),
    (PRE + "drop_short_ratio", GONE, "data.drop_short_share", 1.0),
    (PRE + "hw_aspect_thr", GONE, "data.max_aspect_ratio", 1.5),
    (PRE + "hw_aspect_thr", 0, "data.max_aspect_ratio", 1.5),
    (PRE + "max_hxw", 200000, "data.min_pixels", 50000),
    (PRE + "force_resolution", True, "data.min_pixels", None),
    (PRE + "video_reader_type", "DecordVideo", "data.reader", "decord"),
    ("dataloader_param__pin_memory", GONE, "data.pin_memory", False),
    ("dataloader_param__sampler_type", "SequentialSampler", "data.order", "sequential"),
    ("dataloader_param__sampler_type", GONE, "data.order", "shuffled"),
    ("dataset_param__text_preprocess_methods", GONE, "data.captions.cleaning", "web_without_cjk"),
    ("dataset_param__text_preprocess_methods", [{"method": "basic_clean"}], "data.captions", None),
]
FLAG_PAIRS: list[tuple[str, str, str, Any]] = [
    ("", "", "optim.weight_decay", 0.01),
    ("", "", "optim.betas", (0.9, 0.999)),
    ("", "", "optim.max_grad_norm", 1.0),
    ("", "", "seed", 1234),
    ("", "", "data.workers", 2),
    ("", "", "runtime.log_every", 100),
    ("", "", "runtime.timeout_minutes", 10),
    ("", "", "recompute.mode", "none"),
    ("", "", "precision.compute", "bfloat16"),
    (" --bf16", "", "precision.compute", "float32"),
    (" --lr-decay-style constant", "", "schedule.decay", "linear"),
    (" --lr-decay-style constant", " --min-lr 3e-6", "schedule.final_ratio", 0.3),
    (" --global-batch-size 8", "", "data.batch_size", 8),
    ("size 1 --global-batch-size 8", "size 2 --global-batch-size 32", "diffusion.clips_per_level", 2),
    ("", " --context-parallel-size 4", "parallel.ring", 4),
    ("", " --context-parallel-size 4 --context-parallel-algo ulysses_cp_algo", "parallel.ulysses", 4),
    ("", " --lora-r 16 --lora-target-modules proj_q", "lora.alpha", 16.0),
    ("", " --lora-r 16 --lora-target-modules proj_q", "lora.targets", ("blocks.*.attn*.to_q",)),
    ("", " --optimizer-selection fused_ema_adamw", "ema.decay", 0.9999),
    ("", " --recompute-granularity full --recompute-method uniform", "recompute.modules", ("blocks.*",)),
]
GENERATION_PAIRS: list[tuple[str, Any, str, Any]] = [
    ("diffusion__flow_shift", GONE, "sampler.shift", 1.0),
    ("diffusion__guidance_scale", [4.0, 3.0], "sampler.guidance_high_noise", 4.0),
    ("diffusion__guidance_scale", [4.0, 3.0], "sampler.guidance_low_noise", 3.0),
    ("diffusion__num_train_steps", 10, "sampler.steps", 50),
    ("pipeline_config__input_size", [45, 704, 1280], "height", 704),
    ("pipeline_config__cpu_offload", True, "runtime.residency.experts", "swap"),
    ("pipeline_config__seed", 5, "samples.seeds", (5,)),
    ("prompt", "a fox", "samples.prompts", ("a fox",)),
    ("fps", 24, "fps", 24),
]


def value(spec: Any, path: str) -> Any:
    found = get(spec, path)
    return getattr(found, "value", found)


@pytest.mark.parametrize(("key", "theirs", "path", "ours"), MODEL_PAIRS)
def test_keys_of_model_json(tmp_path: Path, key: str, theirs: Any, path: str, ours: Any) -> None:
    spec, _ = import_files(written(tmp_path, model__json=changed(MODEL, **{key: theirs})))
    assert value(spec, path) == ours


@pytest.mark.parametrize(("key", "theirs", "path", "ours"), DATA_PAIRS)
def test_keys_of_data_json(tmp_path: Path, key: str, theirs: Any, path: str, ours: Any) -> None:
    spec, _ = import_files(written(tmp_path, data__json=changed(DATA, **{key: theirs})))
    assert value(spec, path) == ours


@pytest.mark.parametrize(("old", "new", "path", "ours"), FLAG_PAIRS)
def test_flags_of_a_script(tmp_path: Path, old: str, new: str, path: str, ours: Any) -> None:
    flags = FLAGS.replace(old, new) if old else FLAGS + new
    spec, _ = import_files(written(tmp_path, model__json=MODEL, pretrain__sh=launch(flags)))
    assert value(spec, path) == ours


@pytest.mark.parametrize(("key", "theirs", "path", "ours"), GENERATION_PAIRS)
def test_keys_of_inference_json(tmp_path: Path, key: str, theirs: Any, path: str, ours: Any) -> None:
    files = written(tmp_path, inference_model__json=changed(INFERENCE, **{key: theirs}))
    spec, _ = import_files(files)
    assert value(spec, path) == ours
