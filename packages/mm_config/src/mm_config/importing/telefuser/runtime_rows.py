"""TeleFuser's runtime configuration, class by class (`telefuser/core/config.py`)."""

from __future__ import annotations

from mm_config.importing.telefuser.rows import dead, derived, group, mapped, of, outside, refused
from mm_config.specs.parallel import AttentionImpl, CompileBackend, CompileMode
from mm_config.specs.serving import QuantFormat, SparsePattern

DTYPES = ("bfloat16", "float16", "float32")
ATTENTION = {
    "TORCH_SDPA": AttentionImpl.SDPA,
    "TORCH_CUDNN": AttentionImpl.CUDNN,
    "FLASH_ATTN_2": AttentionImpl.FLASH_2,
    "FLASH_ATTN_3": AttentionImpl.FLASH_3,
    "FLASH_ATTN_4": AttentionImpl.FLASH_4,
    "SAGE_ATTN_2_8_8": AttentionImpl.SAGE,
    "SAGE_ATTN_2_8_16": AttentionImpl.SAGE,
    "SAGE_ATTN_2_8_8_SM90": AttentionImpl.SAGE,
}
SPARSE = {"RADIAL_ATTN": SparsePattern.RADIAL, "LOCAL_SPARSE_ATTN": SparsePattern.LOCAL}
OFFLOAD = ("NO_CPU_OFFLOAD", "MODEL_CPU_OFFLOAD", "SEQUENTIAL_CPU_OFFLOAD", "ASYNC_CPU_OFFLOAD")
QUANT = {
    "FP8": QuantFormat.FP8,
    "INT8": QuantFormat.INT8,
    "MXFP8": QuantFormat.MXFP8,
    "MXFP6": QuantFormat.MXFP6,
    "MXFP4": QuantFormat.MXFP4,
    "NVFP4": QuantFormat.NVFP4,
    "BNB_NF4": QuantFormat.NF4,
    "TORCHAO_FP8": QuantFormat.FP8,
}
KERNELS = ("AUTO", "TF_KERNEL", "VLLM", "CUTLASS", "TORCHAO", "BITSANDBYTES")
BACKENDS = {backend.value: backend for backend in CompileBackend}
MODES = {mode.value: mode for mode in CompileMode}
SKIPPED = ("head", "time_embedding", "time_projection", "patch_embedding")

MODEL_RUNTIME = of(
    "ModelRuntimeConfig",
    group("offload_config", "OffloadConfig", "runtime.residency"),
    derived(
        "device_type",
        str,
        None,
        "all networks work on one device; null takes the pipeline's",
        "runtime.device",
        optional=True,
    ),
    outside("device_id", int, 0, "each rank takes a device of its own"),
    group("lora_configs", "LoraConfig", "loras", many=True),
    mapped(
        "torch_dtype",
        DTYPES,
        "bfloat16",
        "dtype, autoencoder.dtype, text_encoder.dtype, image_encoder.dtype",
        "that of the network it stands at; both experts have one",
    ),
    group("attention_config", "AttentionConfig", "runtime.attention"),
    mapped("compile", bool, False, "runtime.compile.enabled", "before CompileConfig"),
    group("compile_config", "CompileConfig", "runtime.compile"),
    group("quant_config", "QuantConfig", "quantization"),
    group("parallel_config", "ParallelConfig", "runtime.parallel"),
    group("ray_config", "RayConfig"),
    group("feature_cache_config", "FeatureCacheConfig", "feature_cache"),
)

OFFLOAD_ROWS = of(
    "OffloadConfig",
    mapped(
        "offload_type",
        OFFLOAD,
        "NO_CPU_OFFLOAD",
        "runtime.residency.experts, runtime.residency.encoders",
        "resident, swap, layerwise; SEQUENTIAL is layerwise without prefetch",
    ),
    mapped("pin_cpu_memory", bool, True, "runtime.residency.pin_memory"),
    mapped("offload_ratio", float, 1.0, "runtime.residency.share", "read by ASYNC_CPU_OFFLOAD alone"),
    mapped("prefetch_size", int, 1, "runtime.residency.prefetch", "read by ASYNC_CPU_OFFLOAD alone"),
)

LORA_ROWS = of(
    "LoraConfig",
    mapped("path", str, "", "loras.N.high_noise, loras.N.low_noise", "a logical name, the path a location"),
    mapped("strength", float, 1.0, "loras.N.strength"),
)

ATTENTION_ROWS = of(
    "AttentionConfig",
    mapped(
        "attn_impl",
        (*ATTENTION, "SPARGE_ATTN", *SPARSE),
        "TORCH_SDPA",
        "runtime.attention",
        "the three Sage kernels are one: sage takes the device's; RADIAL_ATTN and LOCAL_SPARSE_ATTN need "
        "sparse_config; SPARGE_ATTN, whose pattern depends on the data, is refused",
    ),
    group("sparse_config", "SparseAttentionConfig", "sparse_attention", optional=True),
    refused("scale", float, None, "scores are scaled by 1 / sqrt(head width)", optional=True),
    refused("dropout", float, 0.0, "generation drops nothing"),
    refused("is_causal", bool, False, "Wan's attention sees all frames"),
)

SPARSE_ROWS = of(
    "SparseAttentionConfig",
    mapped("sparse_impl", ("radial", "local"), None, "sparse_attention.pattern", optional=True),
    mapped("dense_timesteps", int, 40, "sparse_attention.dense_steps", "with 40 steps, 40 is always dense"),
    mapped("dense_layers", int, 0, "sparse_attention.dense_layers"),
    mapped("decay_factor", float, 1.0, "sparse_attention.decay_factor", "read by radial alone"),
    mapped("local_window_size", int, 6, "sparse_attention.window", "read by local alone"),
    mapped("block_size", int, 128, "sparse_attention.block_size"),
    mapped("use_sage_attention", bool, False, "runtime.attention", "sage, or auto"),
)

COMPILE_ROWS = of(
    "CompileConfig",
    mapped("enabled", bool, False, "runtime.compile.enabled"),
    mapped(
        "backend",
        (*BACKENDS, "aot_nop", "nop"),
        "inductor",
        "runtime.compile.backend",
        "aot_nop and nop, which compile nothing, are refused",
    ),
    mapped("fullgraph", bool, False, "runtime.compile.fullgraph"),
    mapped("dynamic", bool, None, "runtime.compile.dynamic", "null starts static, so false", optional=True),
    mapped("mode", tuple(MODES), None, "runtime.compile.mode", "null is default", optional=True),
    derived(
        "coordinate_descent_tuning",
        bool,
        False,
        "part of the presets max-autotune and max-autotune-no-cudagraphs",
        "runtime.compile.mode",
    ),
    refused("epilogue_fusion", bool, True, "inductor's presets all fuse epilogues"),
    derived(
        "triton_cudagraphs",
        bool,
        False,
        "part of the presets reduce-overhead and max-autotune",
        "runtime.compile.mode",
    ),
    derived("max_autotune", bool, False, "part of the presets max-autotune*", "runtime.compile.mode"),
)

QUANT_ROWS = of(
    "QuantConfig",
    mapped("enabled", bool, False, "quantization"),
    mapped("quant_type", tuple(QUANT), "FP8", "quantization.format", "TORCHAO_FP8 is fp8, BNB_NF4 nf4"),
    outside("kernel_backend", KERNELS, "AUTO", "the format and the device say which kernel works"),
    refused("weight_block_size", None, None, "scales are per row, or per group of a row", optional=True),
    derived(
        "group_size",
        int,
        16,
        "NVFP4 has 16, MXFP* 32; the other formats have one scale per row and leave 16 unread",
        "quantization.group_size",
    ),
    mapped(
        "quantize_modules",
        str,
        None,
        "quantization.modules",
        "the original names become those of diffusers; null is `*`",
        optional=True,
        many=True,
    ),
    mapped(
        "skip_modules",
        str,
        SKIPPED,
        "quantization.skip",
        "the original names become those of diffusers",
        many=True,
    ),
    refused("keep_fp16_weight", bool, False, "no second copy of the weights is kept"),
)

PARALLEL_ROWS = of(
    "ParallelConfig",
    derived("device_ids", int, None, "as many as the product of the degrees", optional=True, many=True),
    mapped("dp_degree", int, 1, "runtime.parallel.data"),
    mapped("cfg_degree", int, 1, "runtime.guidance", "2 is parallel, 1 sequential: two passes in turn"),
    mapped("sp_ulysses_degree", int, 1, "runtime.parallel.ulysses"),
    mapped("sp_ring_degree", int, 1, "runtime.parallel.ring"),
    refused("pp_degree", int, 1, "generation has no pipeline of ranks"),
    mapped("tp_degree", int, 1, "runtime.parallel.tensor"),
    mapped("enable_fsdp", bool, False, "runtime.parallel.fsdp"),
    mapped("timeout", int, 600, "runtime.parallel.timeout_seconds"),
    outside("queue_with_cpu", bool, False, "ranks are processes of one program, without queues in between"),
    outside("worker_intra_op_threads", int, 1, "OMP_NUM_THREADS of the launch says it"),
)

RAY_REASON = "read where enable_vae_ray, which is refused, is on"
RAY_ROWS = of(
    "RayConfig",
    dead("ray_address", str, None, RAY_REASON, optional=True),
    group("gpu_config", "RayGPUConfig"),
    dead("num_cpus", int, 8, RAY_REASON),
    dead("memory_gb", float, 32, RAY_REASON),
) + of("RayGPUConfig", dead("num_gpus", float, 0, RAY_REASON), dead("memory_limit", float, 0.8, RAY_REASON))

CACHE_ROWS = of(
    "FeatureCacheConfig",
    mapped("enabled", bool, False, "feature_cache"),
    derived("model_type", str, "", "chooses a calibration file, which the dump does not hold"),
    mapped("n_derivatives", int, 1, "feature_cache.derivatives"),
    refused("taylor_threshold", int, 2, "extrapolation begins at one place"),
)

RUNTIME_ROWS = (
    *MODEL_RUNTIME,
    *OFFLOAD_ROWS,
    *LORA_ROWS,
    *ATTENTION_ROWS,
    *SPARSE_ROWS,
    *COMPILE_ROWS,
    *QUANT_ROWS,
    *PARALLEL_ROWS,
    *RAY_ROWS,
    *CACHE_ROWS,
)
