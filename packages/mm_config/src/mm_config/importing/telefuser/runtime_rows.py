"""TeleFuser's runtime configuration, class by class (`telefuser/core/config.py`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from mm_config.importing.rows import Row, of_kind
from mm_config.importing.telefuser.meanings import (
    APPROXIMATE,
    ATTENTION,
    BACKENDS,
    MODES,
    OFFLOAD,
    QUANT,
    SPARSE,
)
from mm_config.importing.values import ReadValue, optional, real, switch, whole
from mm_config.importing.verdict import Verdict
from mm_config.schema.fields import ABSENT
from mm_config.schema.types import is_tuple

_REPR = re.compile(r"<([^:>]+)(?::.*)?>")


def words(value: Any) -> str:
    """A text, which may be empty."""
    if not isinstance(value, str):
        raise ValueError("expected text")
    return value


def one_of(names: Iterable[str]) -> ReadValue:
    """A member of an enum by its name in any case, `Class.NAME` or its repr; `torch.float16`."""
    known = {name.lower(): name for name in names}

    def read(value: Any) -> str:
        plain = _REPR.sub(r"\1", value).lower() if isinstance(value, str) else ""
        for name in (plain, plain.rpartition(".")[2]):
            if name in known:
                return known[name]
        raise ValueError(f"expected one of {', '.join(known.values())}")

    return read


def several(read: ReadValue) -> ReadValue:
    """A list, each item read alike."""

    def read_all(value: Any) -> tuple[Any, ...]:
        if not is_tuple(value):
            raise ValueError("expected a list")
        return tuple(map(read, value))

    return read_all


def one_or_several(value: Any) -> str | tuple[str, ...]:
    """A text, or a list of texts."""
    return several(words)(value) if is_tuple(value) else words(value)


def mapped(name: str, read: ReadValue, default: Any, target: str, reason: str = "") -> Row:
    """A field with a place in our spec."""
    return Row("", name, Verdict.MAPPED, target, reason, _nullable(read, default), default)


def _told(verdict: Verdict) -> Callable[..., Row]:
    """Rows of a name, a reader, TeleFuser's default, the reason and perhaps a target."""

    def row(name: str, read: ReadValue | None, default: Any, reason: str, target: str = "") -> Row:
        return Row("", name, verdict, target, reason, _nullable(read, default), default)

    return row


derived, outside, refused = map(_told, (Verdict.DERIVED, Verdict.OUTSIDE, Verdict.REFUSED))
"""What is refused is so at any value but its default."""


def _nullable(read: ReadValue | None, default: Any) -> ReadValue | None:
    """Null is a value of lists, and of fields whose default it is or that have none."""
    return optional(read) if read and (default in (None, ABSENT) or is_tuple(default)) else read


def group(name: str, cls: str, target: str = "", *, many: bool = False) -> Row:
    """A field that holds fields of another class, or a list of such objects."""
    reason = f"its fields have rows under {cls}"
    return Row("", name, Verdict.DERIVED, target, reason, default=None, inside=cls, many=many)


DTYPE = one_of(("bfloat16", "float16", "float32"))
COMPILER = one_of((*BACKENDS, "aot_nop", "nop"))
KERNELS = ("AUTO", "TF_KERNEL", "VLLM", "CUTLASS", "TORCHAO", "BITSANDBYTES")
SKIPPED = ("head", "time_embedding", "time_projection", "patch_embedding")
NO_RAY = "there is no Ray here"
_NAMES = "the original names become those of diffusers"
_DTYPES = "dtype, autoencoder.dtype, text_encoder.dtype, image_encoder.dtype"
_RESIDENCY = "runtime.residency.experts, runtime.residency.encoders"
_MODE, _GROUPS = "runtime.compile.mode", "quantization.group_size"

RUNTIME_ROWS = (
    *of_kind(
        "ModelRuntimeConfig",
        group("offload_config", "OffloadConfig", "runtime.residency"),
        derived(
            "device_type", words, None, "all work on one device; null is the pipeline's", "runtime.device"
        ),
        outside("device_id", whole, 0, "each rank takes a device of its own"),
        group("lora_configs", "LoraConfig", "loras", many=True),
        mapped(
            "torch_dtype", DTYPE, "bfloat16", _DTYPES, "that of the network it stands at; experts share one"
        ),
        group("attention_config", "AttentionConfig", "runtime.attention"),
        mapped("compile", switch, False, "runtime.compile.enabled", "in older versions"),
        group("compile_config", "CompileConfig", "runtime.compile"),
        group("quant_config", "QuantConfig", "quantization"),
        group("parallel_config", "ParallelConfig", "runtime.parallel"),
        group("ray_config", "RayConfig"),
        group("feature_cache_config", "FeatureCacheConfig", "feature_cache"),
    ),
    *of_kind(
        "OffloadConfig",
        mapped(
            "offload_type", one_of(OFFLOAD), "NO_CPU_OFFLOAD", _RESIDENCY, "SEQUENTIAL prefetches nothing"
        ),
        mapped("pin_cpu_memory", switch, True, "runtime.residency.pin_memory"),
        mapped("offload_ratio", real, 1.0, "runtime.residency.share", "read by ASYNC_CPU_OFFLOAD alone"),
        mapped("prefetch_size", whole, 1, "runtime.residency.prefetch", "read by ASYNC_CPU_OFFLOAD alone"),
    ),
    *of_kind(
        "LoraConfig",
        mapped(
            "path", words, "", "loras.N.high_noise, loras.N.low_noise", "a name, whose path is a location"
        ),
        mapped("strength", real, 1.0, "loras.N.strength"),
    ),
    *of_kind(
        "AttentionConfig",
        mapped(
            "attn_impl",
            one_of((*ATTENTION, *APPROXIMATE, "SPARGE_ATTN", *SPARSE)),
            "TORCH_SDPA",
            "runtime.attention, approximate_attention",
            "the three Sage kernels are sage; SPARGE_ATTN, whose pattern depends on the data, is refused",
        ),
        group("sparse_config", "SparseAttentionConfig", "sparse_attention"),
        refused("scale", real, None, "scores are scaled by 1 / sqrt(head width)"),
        refused("dropout", real, 0.0, "generation drops nothing"),
        refused("is_causal", switch, False, "Wan's attention sees all frames"),
    ),
    *of_kind(
        "SparseAttentionConfig",
        mapped("sparse_impl", one_of(("radial", "local")), None, "sparse_attention.pattern"),
        mapped(
            "dense_timesteps", whole, 40, "sparse_attention.dense_steps", "with 40 steps, 40 is always dense"
        ),
        mapped("dense_layers", whole, 0, "sparse_attention.dense_layers"),
        mapped("decay_factor", real, 1.0, "sparse_attention.decay_factor", "read by radial alone"),
        mapped("local_window_size", whole, 6, "sparse_attention.window", "read by local alone"),
        mapped("block_size", whole, 128, "sparse_attention.block_size"),
        mapped("use_sage_attention", switch, False, "approximate_attention", "sage, or None"),
    ),
    *of_kind(
        "CompileConfig",
        mapped("enabled", switch, False, "runtime.compile.enabled"),
        mapped("backend", COMPILER, "inductor", "runtime.compile.backend", "aot_nop and nop compile nothing"),
        mapped("fullgraph", switch, False, "runtime.compile.fullgraph"),
        mapped("dynamic", switch, None, "runtime.compile.dynamic", "null starts static, so false"),
        mapped("mode", one_of(MODES), None, "runtime.compile.mode", "null is default"),
        derived("coordinate_descent_tuning", switch, False, "part of the presets max-autotune*", _MODE),
        outside("epilogue_fusion", switch, True, "inductor's presets all fuse epilogues"),
        derived("triton_cudagraphs", switch, False, "part of reduce-overhead and max-autotune", _MODE),
        derived("max_autotune", switch, False, "part of the presets max-autotune*", _MODE),
    ),
    *of_kind(
        "QuantConfig",
        mapped("enabled", switch, False, "quantization"),
        mapped("quant_type", one_of(QUANT), "FP8", "quantization.format", "TORCHAO_FP8 is fp8, BNB_NF4 nf4"),
        outside(
            "kernel_backend", one_of(KERNELS), "AUTO", "the format and the device say which kernel works"
        ),
        refused("weight_block_size", None, None, "scales are per row, or per group of a row"),
        derived("group_size", whole, 16, "NVFP4 has 16, MXFP* 32, others one scale per row", _GROUPS),
        mapped("quantize_modules", several(words), None, "quantization.modules", f"{_NAMES}; null is `*`"),
        mapped("skip_modules", several(words), SKIPPED, "quantization.skip", _NAMES),
        outside("keep_fp16_weight", switch, False, "no second copy of the weights is kept"),
    ),
    *of_kind(
        "ParallelConfig",
        derived("device_ids", several(whole), None, "as many as the product of the degrees"),
        mapped("dp_degree", whole, 1, "runtime.parallel.data"),
        mapped("cfg_degree", whole, 1, "runtime.guidance", "2 is parallel, 1 sequential: two passes in turn"),
        mapped("sp_ulysses_degree", whole, 1, "runtime.parallel.ulysses"),
        mapped("sp_ring_degree", whole, 1, "runtime.parallel.ring"),
        outside("pp_degree", whole, 1, "generation has no pipeline of ranks: each has all blocks"),
        mapped("tp_degree", whole, 1, "runtime.parallel.tensor"),
        mapped("enable_fsdp", switch, False, "runtime.parallel.fsdp"),
        mapped("timeout", whole, 600, "runtime.parallel.timeout_seconds"),
        outside(
            "queue_with_cpu", switch, False, "ranks are processes of one program, without queues in between"
        ),
        outside("worker_intra_op_threads", whole, 1, "OMP_NUM_THREADS of the launch says it"),
    ),
    *of_kind(
        "RayConfig",
        outside("ray_address", words, None, NO_RAY),
        group("gpu_config", "RayGPUConfig"),
        outside("num_cpus", whole, 8, NO_RAY),
        outside("memory_gb", real, 32, NO_RAY),
    ),
    *of_kind(
        "RayGPUConfig", outside("num_gpus", real, 0, NO_RAY), outside("memory_limit", real, 0.8, NO_RAY)
    ),
    *of_kind(
        "FeatureCacheConfig",
        mapped("enabled", switch, False, "feature_cache"),
        derived("model_type", words, "", "chooses a calibration file, which the dump does not hold"),
        mapped("n_derivatives", whole, 1, "feature_cache.derivatives"),
        refused("taylor_threshold", whole, 2, "extrapolation begins at one place"),
    ),
)
