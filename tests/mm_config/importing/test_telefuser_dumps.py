"""Dumps with each optional feature, in each form that TeleFuser writes, with the right values by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_config.families import wan21
from mm_config.specs.weights import ReleasedWeights
from tests.mm_config.importing.telefuser_dumps import (
    LORAS,
    RADIAL,
    SMALL,
    T14,
    TWO,
    W21,
    W22,
    Kind,
    assert_means,
    release,
    shards,
)

DUMPS: dict[str, Kind] = {
    "T2V-1.3B with the clip stage and frame interpolation of its script": (
        W21,
        SMALL,
        {"enable_clip_stage": True, "enable_vfi": True},
        {"model": wan21.T2V_1_3B.model, "image_encoder": None, "num_frames": 81},
        ("no use without an image", "no network interpolates frames"),
    ),
    "T2V-14B with FSDP, ring attention and a longer wait": (
        W21,
        release(T14, shards(T14, 6)),
        {
            "enable_denoising_parallel": True,
            "dits.parallel_config.sp_ring_degree": 2,
            "dits.parallel_config.enable_fsdp": True,
            "dits.parallel_config.timeout": 1800,
        },
        {
            "runtime.parallel.ring": 2,
            "runtime.parallel.fsdp": True,
            "runtime.parallel.timeout_seconds": 1800,
        },
        (),
    ),
    "T2V-A14B with one expert on the device at a time": (
        W22,
        TWO,
        {
            "dits.offload_config.offload_type": "MODEL_CPU_OFFLOAD",
            "text_encoding_config.offload_config.offload_type": "MODEL_CPU_OFFLOAD",
            "dits.offload_config.pin_cpu_memory": False,
            "text_encoding_config.offload_config.pin_cpu_memory": False,
        },
        {
            "runtime.residency.experts": "swap",
            "runtime.residency.encoders": "swap",
            "runtime.residency.pin_memory": False,
        },
        ("takes layer2_inference_config.text_encoding_config.offload_config.offload_type",),
    ),
    "T2V-A14B with blocks that come and go": (
        W22,
        TWO,
        {
            "dits.offload_config.offload_type": "ASYNC_CPU_OFFLOAD",
            "dits.offload_config.offload_ratio": 1,
            "dits.offload_config.prefetch_size": 3,
        },
        {
            "runtime.residency.experts": "layerwise",
            "runtime.residency.encoders": "resident",
            "runtime.residency.share": 1.0,
            "runtime.residency.prefetch": 3,
        },
        (),
    ),
    "T2V-A14B with radial attention": (
        W22,
        TWO,
        {"dits.attention_config.attn_impl": "RADIAL_ATTN", "dits.attention_config.sparse_config": RADIAL},
        {
            "sparse_attention.pattern": "radial",
            "sparse_attention.dense_steps": 12,
            "sparse_attention.dense_layers": 1,
            "sparse_attention.decay_factor": 0.2,
        },
        (),
    ),
    "T2V-A14B in 8 bits": (
        W22,
        TWO,
        {"dits.quant_config.enabled": True, "dits.quant_config.quant_type": "TORCHAO_FP8"},
        {"quantization.format": "fp8", "quantization.group_size": None, "quantization.modules": ("*",)},
        (),
    ),
    "T2V-A14B with a feature cache": (
        W22,
        TWO,
        {"dits.feature_cache_config.enabled": True, "dits.feature_cache_config.model_type": "wan22_t2v"},
        {"feature_cache.derivatives": 1, "feature_cache.threshold": 0.24},
        ("chooses a calibration file",),
    ),
    "T2V-A14B compiled": (
        W22,
        TWO,
        {"dits.compile_config.enabled": True, "dits.compile_config.mode": "max-autotune-no-cudagraphs"},
        {"runtime.compile.enabled": True, "runtime.compile.mode": "max-autotune-no-cudagraphs"},
        (),
    ),
    "T2V-A14B with an autoencoder in Ray": (
        W22,
        TWO,
        {"enable_vae_ray": True, "vae_config.ray_config.gpu_config.num_gpus": 0.5, "enable_metrics": True},
        {"autoencoder.dtype": "bfloat16"},
        ("there is no Ray",),
    ),
    "T2V-A14B with an adapter of the high-noise expert": (
        W22,
        TWO,
        {"dit_high_config.lora_configs": LORAS},
        {
            "loras.0.high_noise": ReleasedWeights(name="fox", subfolder="high.safetensors"),
            "loras.0.low_noise": None,
            "loras.0.strength": 0.8,
        },
        ("--location fox=/loras/fox",),
    ),
    "enums as Python prints them": (
        W21,
        SMALL,
        {
            "dits.attention_config.attn_impl": "AttnImplType.FLASH_ATTN_3",
            "all.offload_config.offload_type": "<WeightOffloadType.NO_CPU_OFFLOAD: 1>",
            "dits.quant_config.quant_type": "fp8",
            "/device": "cuda:0",
        },
        {"runtime.attention": "flash_3", "runtime.residency.experts": "resident", "runtime.device": "cuda"},
        (),
    ),
    "nulls": (
        W21,
        SMALL,
        {
            "vfi_config": None,
            "clip_config": None,
            "vae_config.ray_config": None,
            "dits.compile_config": None,
            "dits.lora_configs": None,
            "dits.feature_cache_config": None,
            "dits.parallel_config.device_ids": "None",
        },
        {"runtime.compile.enabled": False, "loras": (), "feature_cache": None},
        (),
    ),
    "a newer version with fields of its own": (
        W21,
        SMALL,
        {
            "dits.sparse_vae": {"enabled": False, "levels": [1, 2]},
            "enable_teacache": False,
            "dits.parallel_config.sp_unified_degree": 1,
        },
        {"model": wan21.T2V_1_3B.model},
        ("sparse_vae.levels = (1, 2)", "enable_teacache = false", "sp_unified_degree = 1"),
    ),
    "encoders that are set up like the network": (
        W21,
        SMALL,
        {
            "all.attention_config.attn_impl": "SAGE_ATTN_2_8_8_SM90",
            "all.compile_config.enabled": True,
            "text_encoding_config.quant_config.enabled": True,
        },
        {"runtime.compile.enabled": True, "runtime.compile_autoencoder": False},
        ("the text_encoder has exact attention alone", "the text_encoder is not quantised here"),
    ),
    "tiles that are shared by one rank, degrees that nothing reads": (
        W22,
        TWO,
        {"enable_vae_parallel": True, "dits.parallel_config.sp_ulysses_degree": 4},
        {"runtime.parallel.autoencoder": False, "runtime.parallel.ulysses": 1},
        ("shares its tiles with none", "TeleFuser leaves them unread", "run it   python "),
    ),
    "tiles of two ranks that make different videos": (
        W22,
        TWO,
        {
            "enable_vae_parallel": True,
            "enable_denoising_parallel": True,
            "dits.parallel_config.dp_degree": 2,
        },
        {"runtime.parallel.autoencoder": False, "runtime.parallel.data": 2, "autoencoder.tiling": False},
        ("shares its tiles with none", "run it   torchrun --nproc-per-node=2 "),
    ),
    "what only says where and how fast": (
        W21,
        SMALL,
        {
            "/device": "xpu",
            "enable_denoising_parallel": True,
            "dits.parallel_config.device_ids": [0],
            "dits.parallel_config.pp_degree": 2,
            "dits.parallel_config.cfg_degree": 4,
            "dits.compile_config.enabled": True,
            "dits.compile_config.epilogue_fusion": False,
            "dits.compile_config.max_autotune": True,
            "dits.compile_config.triton_cudagraphs": True,
        },
        {"runtime.device": "auto", "runtime.guidance": "parallel", "runtime.compile.mode": "default"},
        ("expected cuda, npu, cpu", "has 1 devices", "two passes", "none of torch.compile's presets"),
    ),
}


@pytest.mark.parametrize("name", DUMPS)
def test_a_dump_is_the_spec_that_it_means(name: str, tmp_path: Path) -> None:
    assert_means(DUMPS[name], tmp_path)
