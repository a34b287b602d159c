"""The smallest files of MindSpeed-MM in which one thing or another is said."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

NETWORK = {
    "model_id": "wandit",
    "model_type": "t2v",
    "patch_size": [1, 2, 2],
    "in_dim": 16,
    "out_dim": 16,
    "hidden_size": 5120,
    "ffn_dim": 13824,
    "freq_dim": 256,
    "text_dim": 4096,
    "num_heads": 40,
    "num_layers": 40,
    "eps": 1e-6,
    "max_seq_len": 1024,
    "img_dim": 1280,
}
SMALL_NETWORK = {**NETWORK, "hidden_size": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30}
NOISE = {
    "model_id": "wan_flow_match_scheduler",
    "num_train_timesteps": 1000,
    "shift": 5,
    "sigma_min": 0.0,
    "extra_one_step": True,
}
MODEL: dict[str, Any] = {
    "load_video_features": False,
    "load_text_features": False,
    "task": "t2v",
    "diffusion": NOISE,
    "predictor": NETWORK,
}
CHAIN = [
    {"trans_type": "ResizeVideo", "param": {"transform_size": "auto", "mode": "shortside"}},
    {"trans_type": "CenterCropResizeVideo", "param": {"transform_size": "auto"}},
]
CLIPS: dict[str, Any] = {
    "video_processor_type": "OpensoraplanVideoProcessor",
    "num_frames": 49,
    "min_num_frames": 1,
    "frame_interval": 1,
    "auto_interval": False,
    "max_height": 480,
    "max_width": 832,
    "max_hxw": 399360,
    "drop_short_ratio": 0.0,
    "force_resolution": False,
    "hw_stride": 8,
    "hw_aspect_thr": 5.0,
    "train_pipeline": {"video": CHAIN},
}
DATA: dict[str, Any] = {
    "dataset_param": {
        "dataset_type": "t2v",
        "basic_parameters": {"data_path": "./data/data.txt"},
        "preprocess_parameters": CLIPS,
    },
    "dataloader_param": {
        "dataloader_mode": "sampler",
        "sampler_type": "LengthGroupedSampler",
        "shuffle": True,
        "group_data": True,
    },
}
INFERENCE: dict[str, Any] = {
    "pipeline_class": "WanPipeline",
    "dtype": "bf16",
    "device": "npu",
    "fps": 16,
    "frame_interval": 1,
    "pipeline_config": {"input_size": [81, 480, 832]},
    "predictor": SMALL_NETWORK,
    "ae": {"model_id": "wan_video_vae", "dtype": "float32"},
    "text_encoder": {"model_id": "UMT5", "dtype": "bf16"},
    "diffusion": {
        "model_id": "UniPCMultistepScheduler",
        "num_inference_steps": 50,
        "guidance_scale": 5.0,
        "flow_shift": 5.0,
        "use_flow_sigmas": True,
        "prediction_type": "flow_prediction",
    },
}
FLAGS = (
    "--micro-batch-size 1 --global-batch-size 8 --lr 1e-5 --train-iters 100 --lr-decay-style constant --bf16"
)
GONE = object()
"""In place of a value: the key is missing."""


def changed(tree: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A copy with values at paths, whose parts are joined by `__`."""
    tree = copy.deepcopy(tree)
    for path, value in values.items():
        *above, last = path.split("__")
        node = tree
        for name in above:
            node = node.setdefault(name, {})
        if value is GONE:
            node.pop(last, None)
        else:
            node[last] = value
    return tree


def clips(**values: Any) -> dict[str, Any]:
    """DATA with other values of `preprocess_parameters`."""
    return changed(
        DATA, **{f"dataset_param__preprocess_parameters__{key}": value for key, value in values.items()}
    )


def launch(flags: str = FLAGS, program: str = "pretrain_sora.py", before: str = "") -> str:
    """A launch script."""
    return f"#!/bin/bash\n{before}torchrun --nproc_per_node 8 {program} {flags}\n"


def written(folder: Path, **files: dict[str, Any] | str) -> list[Path]:
    """Files by their names, `__` for the dot: `model__json={...}`, `pretrain__sh="..."`."""
    paths: list[Path] = []
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2), "utf-8")
        paths.append(path)
    return paths
