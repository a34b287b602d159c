"""Dumps as TeleFuser writes them, whole: every field of every class, as its serializer renders it."""

from __future__ import annotations

import copy
import enum
import json
from pathlib import Path
from typing import Any, TypeAlias

from mm_config.importing.telefuser.importer import import_dump
from mm_config.options.locations import load_locations, unused_names
from mm_config.rules import problems
from mm_config.schema.evolve import get

RUNTIME: dict[str, Any] = {
    "offload_config": {
        "offload_type": "NO_CPU_OFFLOAD",
        "pin_cpu_memory": True,
        "offload_ratio": 1.0,
        "prefetch_size": 1,
    },
    "device_type": None,
    "device_id": 0,
    "lora_configs": [],
    "torch_dtype": "bfloat16",
    "attention_config": {
        "attn_impl": "TORCH_SDPA",
        "sparse_config": None,
        "scale": None,
        "dropout": 0.0,
        "is_causal": False,
    },
    "compile_config": {
        "enabled": False,
        "backend": "inductor",
        "fullgraph": False,
        "dynamic": None,
        "mode": None,
        "coordinate_descent_tuning": False,
        "epilogue_fusion": True,
        "triton_cudagraphs": False,
        "max_autotune": False,
    },
    "quant_config": {
        "enabled": False,
        "quant_type": "FP8",
        "kernel_backend": "AUTO",
        "weight_block_size": None,
        "group_size": 16,
        "quantize_modules": None,
        "skip_modules": ["head", "time_embedding", "time_projection", "patch_embedding"],
        "keep_fp16_weight": False,
    },
    "parallel_config": {
        "device_ids": None,
        "dp_degree": 1,
        "cfg_degree": 1,
        "sp_ulysses_degree": 1,
        "sp_ring_degree": 1,
        "pp_degree": 1,
        "tp_degree": 1,
        "enable_fsdp": False,
        "timeout": 600,
        "queue_with_cpu": False,
        "worker_intra_op_threads": 1,
    },
    "ray_config": {
        "ray_address": None,
        "gpu_config": {"num_gpus": 0, "memory_limit": 0.8},
        "num_cpus": 8,
        "memory_gb": 32,
    },
    "feature_cache_config": {
        "enabled": False,
        "model_type": "",
        "n_derivatives": 1,
        "taylor_threshold": 2,
    },
}
"""A ModelRuntimeConfig of defaults."""
FLAGS = ("enable_denoising_parallel", "enable_vae_parallel", "enable_vfi", "enable_metrics")
W21, W22, ASYNC, TI2V = (
    "Wan21VideoPipeline",
    "Wan22VideoPipeline",
    "AsyncWan22VideoPipeline",
    "Wan22TI2VPipeline",
)
STAGES = {
    W21: ("vae_config", "dit_config", "clip_config", "text_encoding_config", "vfi_config"),
    W22: ("vae_config", "dit_high_config", "dit_low_config", "text_encoding_config", "vfi_config"),
    ASYNC: ("vae_config", "dit_high_config", "dit_low_config", "text_encoding_config"),
    TI2V: ("vae_config", "dit_config", "text_encoding_config", "vfi_config"),
}
MORE = {
    W21: ("enable_clip_stage",),
    W22: ("enable_vae_ray",),
    ASYNC: ("enable_vae_ray",),
    TI2V: ("enable_vae_ray",),
}

SHARD = "diffusion_pytorch_model-{:05}-of-{:05}.safetensors"
CLASSES = {
    "wan_video_dit": "WanModel",
    "wan_video_vae": "WanVideoVAE",
    "wan_video_text_encoder": "WanTextEncoder",
    "wan_video_image_encoder": "WanImageEncoder",
}


def shards(folder: str, count: int) -> list[str]:
    """A network in several files, as a wildcard finds them."""
    return [f"{folder}/{SHARD.format(number, count)}" for number in range(1, count + 1)]


def models(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    """`layer1_model_definition.models`: each model's name and path."""
    return [{"name": name, "path": path, "class": CLASSES[name]} for name, path in pairs]


def release(root: str, *networks: Any, image: str = "") -> list[dict[str, Any]]:
    """The models of a release in the original layout."""
    clip = [("wan_video_image_encoder", image)] if image else []
    return models(
        *(("wan_video_dit", path) for path in networks),
        ("wan_video_vae", f"{root}/{'Wan2.2_VAE.pth' if 'TI2V' in root else 'Wan2.1_VAE.pth'}"),
        ("wan_video_text_encoder", f"{root}/models_t5_umt5-xxl-enc-bf16.pth"),
        *clip,
    )


def dump(pipeline: str, listed: list[dict[str, Any]], changes: dict[str, Any]) -> dict[str, Any]:
    """A dump of defaults with some keys set.

    Args:
        pipeline: The pipeline's class.
        listed: The models.
        changes: Values by their keys in `layer2_inference_config`; `dits` stands for each denoising network,
            `all` for each stage. Keys that begin with `/` count from the root.
    """
    own: dict[str, Any] = {stage: copy.deepcopy(RUNTIME) for stage in STAGES[pipeline]}
    own |= {"sample_solver": "unipc" if pipeline == TI2V else "euler"}
    own |= dict.fromkeys((*FLAGS, *MORE[pipeline]), False)
    root = {
        "version": "1.0",
        "timestamp": "2026-07-24T10:30:00.123456",
        "pipeline_type": pipeline,
        "device": "cuda",
        "torch_dtype": "bfloat16",
        "layer1_model_definition": {"models": listed},
        "layer2_inference_config": own,
    }
    groups = {"dits": [one for one in own if one.startswith("dit_")], "all": list(STAGES[pipeline])}
    for key, value in changes.items():
        first, *rest = key.split(".")
        for stage in groups.get(first, [first]):
            at: Any = root if key.startswith("/") else own
            *parents, last = [stage.removeprefix("/"), *rest]
            for name in parents:
                at = at[name]
            at[last] = value
    return root


Kind: TypeAlias = tuple[str, list[dict[str, Any]], dict[str, Any], dict[str, Any], tuple[str, ...]]
"""The pipeline, its models, what is changed of a dump of defaults, values of the spec, and what is told."""


def assert_means(kind: Kind, folder: Path) -> None:
    """The dump is the spec that it means, and says what has to be said."""
    pipeline, listed, changes, right, told = kind
    spec, report = import_dump(write(dump(pipeline, listed, changes), folder))
    found = {path: get(spec, path) for path in right}
    assert {path: one.value if isinstance(one, enum.Enum) else one for path, one in found.items()} == right
    assert problems(spec) == []
    page = "\n".join(report.lines("experiments/x.py"))
    for text in told:
        assert text in page
    places = load_locations([word for word in report.flags if "=" in word], folder)
    assert not list(unused_names(places, spec))
    assert "/path/to" not in report.command("experiments/x.py")


def write(root: dict[str, Any], folder: Path) -> Path:
    """The dump as a file."""
    file = folder / "pipeline_config.json"
    file.write_text(json.dumps(root, indent=2, ensure_ascii=False), "utf-8")
    return file


T13, T14 = "/models/Wan2.1-T2V-1.3B", "/models/Wan2.1-T2V-14B"
I480, I720 = "/models/Wan2.1-I2V-14B-480P", "/models/Wan2.1-I2V-14B-720P"
FL, TI5 = "/models/Wan2.1-FLF2V-14B-720P", "/models/Wan2.2-TI2V-5B"
A14, IA14 = "/models/Wan2.2-T2V-A14B", "/models/Wan2.2-I2V-A14B"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
ONE = "diffusion_pytorch_model.safetensors"
PAIR = (shards(f"{A14}/high_noise_model", 6), shards(f"{A14}/low_noise_model", 6))
SMALL = release(T13, f"{T13}/{ONE}")
TWO = release(A14, *PAIR)
DISTILLED = "/dev/shm/Wan2.2-I2V-A14B-Distill/dit_{}_noise_distill_model_bf16_1022.safetensors"
RADIAL = {
    "sparse_impl": "radial",
    "dense_timesteps": 12,
    "dense_layers": 1,
    "decay_factor": 0.2,
    "local_window_size": 6,
    "block_size": 128,
    "use_sage_attention": False,
}
LORAS = [{"path": "/loras/fox/high.safetensors", "strength": 0.8}]
