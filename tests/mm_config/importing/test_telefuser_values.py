"""What each value of TeleFuser's configuration classes is in a spec, by dumps with one value changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mm_config.importing.telefuser.importer import import_dump
from mm_config.schema.diff import diff
from mm_config.schema.evolve import get
from mm_config.specs.diffusion import SigmaTable, Solver
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.lora import AppliedLoraSpec
from mm_config.specs.parallel import AttentionImpl, CompileBackend, CompileMode
from mm_config.specs.serving import (
    ApproximateAttention,
    FeatureCacheSpec,
    GuidanceMode,
    QuantFormat,
    QuantizationSpec,
    Residency,
    SparseAttentionSpec,
    SparsePattern,
)
from mm_config.specs.weights import ReleasedWeights
from tests.mm_config.importing.telefuser_files import DIT, SEED, edited

PIPELINE = "layer2_inference_config"
NETWORKS, ENCODERS = "networks", "encoders"
"""Stand for each network's and each encoder's configuration in the keys of `SAID`."""
STAGES = {
    NETWORKS: ("dit_high_config", "dit_low_config"),
    ENCODERS: ("text_encoding_config", "vae_config"),
}
PATHS = (
    "Wan2.2-T2V-A14B/high_noise_model",
    "Wan2.2-T2V-A14B/low_noise_model",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers/vae",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers/text_encoder",
)
NAMES = ("wan_video_dit_high", "wan_video_dit_low", "wan_video_vae", "wan_video_text_encoder")


def imported(folder: Path, changes: dict[str, Any]) -> InferSpec:
    """The spec of a dump of two experts that says nothing but the changes."""
    root: dict[str, Any] = {
        "pipeline_type": "Wan22VideoPipeline",
        "layer1_model_definition": {
            "models": [
                {"name": name, "path": path, "class": "WanModel"}
                for name, path in zip(NAMES, PATHS, strict=True)
            ]
        },
        PIPELINE: {},
    }
    for key, value in changes.items():
        first, *rest = key.split(".")
        for stage in STAGES.get(first, ("",)):
            at: Any = root
            *parents, last = [PIPELINE, stage, *rest] if stage else key.split(".")
            for name in parents:
                at = at[int(name)] if isinstance(at, list) else at.setdefault(name, {})
            at[last] = value
    file = folder / "dump.json"
    file.write_text(json.dumps(root, indent=1), "utf-8")
    return import_dump(file)[0]


def quantized(format: QuantFormat, group_size: int | None, **more: Any) -> dict[str, Any]:
    kept = ("proj_out", "condition_embedder.time_embedder", "condition_embedder.time_proj", "patch_embedding")
    patterns = {"modules": ("*",), "skip": kept} | more
    return {"quantization": QuantizationSpec(format=format, group_size=group_size, **patterns)}


RADIAL = {
    "sparse_impl": "radial",
    "dense_timesteps": 3,
    "dense_layers": 2,
    "decay_factor": 0.5,
    "block_size": 64,
    "use_sage_attention": True,
}
LOCAL = {"sparse_impl": "local", "local_window_size": 9, "dense_timesteps": 4}
LORAS = [{"path": "tuned/fox", "strength": 0.25}, {"path": "tuned/owl"}]
SAID: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"networks.torch_dtype": "torch.float16"}, {"dtype": Dtype.FLOAT16}),
    (
        {"encoders.torch_dtype": "float32"},
        {"autoencoder.dtype": Dtype.FLOAT32, "text_encoder.dtype": Dtype.FLOAT32},
    ),
    ({"device": "npu:3"}, {"runtime.device": "npu"}),
    ({"device": "cpu"}, {"runtime.device": "cpu"}),
    *(
        ({"networks.attention_config.attn_impl": theirs}, {"runtime.attention": ours})
        for theirs, ours in (
            ("TORCH_SDPA", AttentionImpl.SDPA),
            ("TORCH_CUDNN", AttentionImpl.CUDNN),
            ("FLASH_ATTN_2", AttentionImpl.FLASH_2),
            ("FLASH_ATTN_3", AttentionImpl.FLASH_3),
        )
    ),
    *(
        (
            {"networks.attention_config.attn_impl": theirs},
            {"runtime.attention": AttentionImpl.AUTO, "approximate_attention": ours},
        )
        for theirs, ours in (
            ("FLASH_ATTN_4", ApproximateAttention.FLASH_4),
            ("SAGE_ATTN_2_8_8", ApproximateAttention.SAGE),
            ("SAGE_ATTN_2_8_16", ApproximateAttention.SAGE),
            ("SAGE_ATTN_2_8_8_SM90", ApproximateAttention.SAGE),
        )
    ),
    (
        {"networks.attention_config": {"attn_impl": "RADIAL_ATTN", "sparse_config": RADIAL}},
        {
            "runtime.attention": AttentionImpl.AUTO,
            "approximate_attention": ApproximateAttention.SAGE,
            "sparse_attention": SparseAttentionSpec(
                pattern=SparsePattern.RADIAL, dense_steps=3, dense_layers=2, decay_factor=0.5, block_size=64
            ),
        },
    ),
    (
        {"networks.attention_config": {"attn_impl": "LOCAL_SPARSE_ATTN", "sparse_config": LOCAL}},
        {
            "runtime.attention": AttentionImpl.AUTO,
            "approximate_attention": None,
            "sparse_attention": SparseAttentionSpec(pattern=SparsePattern.LOCAL, window=9, dense_steps=4),
        },
    ),
    *(
        (
            {"networks.quant_config": {"enabled": True, "quant_type": theirs, "group_size": group or 16}},
            quantized(ours, group),
        )
        for theirs, ours, group in (
            ("FP8", QuantFormat.FP8, None),
            ("TORCHAO_FP8", QuantFormat.FP8, None),
            ("INT8", QuantFormat.INT8, None),
            ("BNB_NF4", QuantFormat.NF4, None),
            ("MXFP8", QuantFormat.MXFP8, 32),
            ("MXFP6", QuantFormat.MXFP6, 32),
            ("MXFP4", QuantFormat.MXFP4, 32),
            ("NVFP4", QuantFormat.NVFP4, 16),
        )
    ),
    (
        {"networks.quant_config": {"enabled": True, "quantize_modules": ["blocks", "head"]}},
        quantized(QuantFormat.FP8, None, modules=("blocks.*", "proj_out")),
    ),
    (
        {"networks.quant_config": {"enabled": True, "skip_modules": ["head", "blocks.3"]}},
        quantized(QuantFormat.FP8, None, skip=("proj_out", "blocks.3")),
    ),
    (
        {
            "networks.quant_config": {
                "enabled": True,
                "skip_modules": ["text_embedding", "time_embedding", "time_projection"],
            }
        },
        quantized(QuantFormat.FP8, None, skip=("condition_embedder",)),
    ),
    (
        {"networks.feature_cache_config": {"enabled": True, "n_derivatives": 4}},
        {"feature_cache": FeatureCacheSpec(derivatives=4)},
    ),
    ({"networks.parallel_config.cfg_degree": 2}, {"runtime.guidance": GuidanceMode.PARALLEL}),
    (
        {"networks.parallel_config": {"dp_degree": 3, "timeout": 77}},
        {"runtime.parallel.data": 3, "runtime.parallel.timeout_seconds": 77},
    ),
    (
        {"networks.parallel_config": {"sp_ulysses_degree": 4, "sp_ring_degree": 2, "enable_fsdp": True}},
        {"runtime.parallel.ulysses": 4, "runtime.parallel.ring": 2, "runtime.parallel.fsdp": True},
    ),
    ({"networks.parallel_config.tp_degree": 4}, {"runtime.parallel.tensor": 4}),
    (
        {"networks.offload_config.offload_type": "MODEL_CPU_OFFLOAD"},
        {"runtime.residency.experts": Residency.SWAP},
    ),
    (
        {"encoders.offload_config": {"offload_type": "MODEL_CPU_OFFLOAD", "pin_cpu_memory": False}},
        {"runtime.residency.encoders": Residency.SWAP, "runtime.residency.pin_memory": False},
    ),
    (
        {"networks.offload_config": {"offload_type": "SEQUENTIAL_CPU_OFFLOAD", "offload_ratio": 0.5}},
        {
            "runtime.residency.experts": Residency.LAYERWISE,
            "runtime.residency.share": 1.0,
            "runtime.residency.prefetch": 0,
        },
    ),
    (
        {
            "networks.offload_config": {
                "offload_type": "ASYNC_CPU_OFFLOAD",
                "offload_ratio": 0.25,
                "prefetch_size": 5,
            }
        },
        {
            "runtime.residency.experts": Residency.LAYERWISE,
            "runtime.residency.share": 0.25,
            "runtime.residency.prefetch": 5,
        },
    ),
    (
        {"networks.compile_config": {"enabled": True, "mode": "max-autotune", "dynamic": True}},
        {
            "runtime.compile.enabled": True,
            "runtime.compile.mode": CompileMode.MAX_AUTOTUNE,
            "runtime.compile.fullgraph": False,
            "runtime.compile.dynamic": True,
        },
    ),
    (
        {"networks.compile_config": {"enabled": True, "backend": "aot_eager", "fullgraph": True}},
        {
            "runtime.compile.enabled": True,
            "runtime.compile.backend": CompileBackend.AOT_EAGER,
            "runtime.compile.fullgraph": True,
        },
    ),
    (
        {f"{PIPELINE}.sample_solver": "unipc"},
        {"sampler.solver": Solver.UNIPC, "sampler.sigmas": SigmaTable.WAN_OFFICIAL},
    ),
    (
        {f"{PIPELINE}.enable_vae_parallel": True, "networks.parallel_config.sp_ulysses_degree": 2},
        {
            "runtime.parallel.autoencoder": True,
            "runtime.parallel.ulysses": 2,
            "autoencoder.tiling": True,
        },
    ),
    (
        {"networks.lora_configs": LORAS},
        {
            "loras": tuple(
                AppliedLoraSpec(
                    high_noise=ReleasedWeights(name=name), low_noise=ReleasedWeights(name=name), strength=by
                )
                for name, by in (("tuned/fox", 0.25), ("tuned/owl", 1.0))
            )
        },
    ),
    (
        {"layer1_model_definition.models.2.path": "own/tuned/vae"},
        {"autoencoder.weights": ReleasedWeights(name="own/tuned", subfolder="vae")},
    ),
)


@pytest.mark.parametrize(("changes", "said"), SAID, ids=[" ".join(map(str, changes)) for changes, _ in SAID])
def test_a_value_of_a_dump_is_that_value_of_the_spec(
    changes: dict[str, Any], said: dict[str, Any], tmp_path: Path
) -> None:
    without, spec = imported(tmp_path, {}), imported(tmp_path, changes)
    assert {path: get(spec, path) for path in said} == said
    for change in diff(without, spec):
        assert any(f"{change.path}.".startswith(f"spec.{path}.") for path in said), change


def test_adapters(tmp_path: Path) -> None:
    loras = [{"path": "/loras/fox.safetensors", "strength": 0.5}]
    spec, report = import_dump(edited(tmp_path, SEED, (f"{DIT}.lora_configs", loras)))
    (lora,) = spec.loras
    assert (lora.high_noise, lora.strength) == (
        ReleasedWeights(name="loras", subfolder="fox.safetensors"),
        0.5,
    )
    assert "loras=/loras" in report.flags
