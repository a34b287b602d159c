"""Every field of TeleFuser's classes has a row, and every row a field of our specs."""

from __future__ import annotations

import importlib
import json
from typing import Any

import attrs

from mm_config.families import wan21
from mm_config.importing.telefuser.importer import import_dump
from mm_config.importing.telefuser.table import CALL, CLASSES, ROWS
from mm_config.importing.verdict import Verdict
from mm_config.schema.evolve import get
from tests.mm_config.importing.telefuser_files import ABSENT, WAN22

# The classes of telefuser/core/config.py and telefuser/pipelines, field by field.
SHARED = "vae_config text_encoding_config vfi_config sample_solver enable_denoising_parallel"
SHARED += " enable_vae_parallel enable_vae_ray enable_vfi enable_metrics"
FIELDS = {
    "ModelRuntimeConfig": "offload_config device_type device_id lora_configs torch_dtype attention_config "
    "compile compile_config quant_config parallel_config ray_config feature_cache_config",
    "OffloadConfig": "offload_type pin_cpu_memory offload_ratio prefetch_size",
    "QuantConfig": "enabled quant_type kernel_backend weight_block_size group_size quantize_modules "
    "skip_modules keep_fp16_weight",
    "LoraConfig": "path strength",
    "AttentionConfig": "attn_impl sparse_config scale dropout is_causal",
    "SparseAttentionConfig": "sparse_impl dense_timesteps dense_layers decay_factor local_window_size "
    "block_size use_sage_attention",
    "ParallelConfig": "device_ids dp_degree cfg_degree sp_ulysses_degree sp_ring_degree pp_degree tp_degree "
    "enable_fsdp timeout queue_with_cpu worker_intra_op_threads",
    "CompileConfig": "enabled backend fullgraph dynamic mode coordinate_descent_tuning epilogue_fusion "
    "triton_cudagraphs max_autotune",
    "FeatureCacheConfig": "enabled model_type n_derivatives taylor_threshold",
    "RayConfig": "ray_address gpu_config num_cpus memory_gb",
    "RayGPUConfig": "num_gpus memory_limit",
    "Wan21VideoPipelineConfig": f"{SHARED} dit_config clip_config enable_clip_stage",
    "Wan22VideoPipelineConfig": f"{SHARED} dit_high_config dit_low_config",
    "Wan22TI2VPipelineConfig": f"{SHARED} dit_config",
    "__call__": "prompt negative_prompt seed height width num_frames num_inference_steps sigma_shift tiled "
    "tile_size tile_stride cfg_scale cfg_scale_high cfg_scale_low boundary target_fps latent_data "
    "rand_device",
}


def test_every_field_of_every_class_has_a_row() -> None:
    for owner, names in FIELDS.items():
        assert set(CLASSES[owner]) == set(names.split()), owner
    for row in ROWS:
        assert row.reason or row.verdict is Verdict.MAPPED, row
        assert (row.verdict is not Verdict.MAPPED) or row.target, row


def test_every_target_is_a_field_of_the_spec() -> None:
    spec, _ = import_dump(WAN22)
    sparse = json.loads(WAN22.read_text("utf-8"))
    assert sparse["pipeline_type"] == "Wan22VideoPipeline"
    whole = attrs.evolve(
        spec,
        image_encoder=wan21.I2V_14B_480P.image_encoder,
        sparse_attention=_default("SparseAttentionSpec"),
        quantization=_default("QuantizationSpec"),
        feature_cache=_default("FeatureCacheSpec"),
        loras=(_default("AppliedLoraSpec", "mm_config.specs.lora"),),
    )
    for row in ROWS:
        for path in filter(None, row.target.split(", ")):
            get(whole, path.replace(".N.", ".0."))


def _default(name: str, module: str = "mm_config.specs.serving") -> Any:
    return getattr(importlib.import_module(module), name)()


def test_the_call_s_arguments_are_in_no_dump() -> None:
    spec, report = import_dump(WAN22)
    shown = " ".join(report.more[ABSENT])
    for name, row in CLASSES[CALL].items():
        if row.verdict is Verdict.MAPPED and name != "cfg_scale":
            assert f"({name}" in shown
    assert spec.negative_prompt == wan21.NEGATIVE_PROMPT
