"""Random legal values of MindSpeed-MM's files, each fitting the others."""

from __future__ import annotations

import random
from typing import Any

from tests.mm_config.importing.mindspeed_samples import OWN_VALUES, rows, some

PRE = "dataset_param.preprocess_parameters"
NETWORKS = (
    {"hidden_size": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30},
    {"hidden_size": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40},
    {"hidden_size": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 30},
    {"hidden_size": 256, "ffn_dim": 512, "num_heads": 4, "num_layers": 3},
)


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Paths as nested mappings; `a[].b` makes a list of one."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        node: Any = tree
        *parents, last = path.split(".")
        for name in parents:
            if name.endswith("[]"):
                node = node.setdefault(name[:-2], [{}])[0]
            else:
                node = node.setdefault(name, {})
        node[last] = list(value) if isinstance(value, tuple) else value
    return tree


def model_values(draw: random.Random, features: bool) -> dict[str, Any]:
    """A model.json."""
    values = some(draw, "model.json", draw.choice((0.3, 0.7, 1.0)))
    kind = draw.choice(("t2v", "wan2.2-t2v", "ti2v", "i2v", "flf2v", "wan2.2-i2v"))
    images = kind in ("i2v", "flf2v", "wan2.2-i2v")
    latents = draw.choice((16, 48)) if kind in ("t2v", "ti2v") else 16
    values |= {f"predictor.{name}": value for name, value in draw.choice(NETWORKS).items()}
    values |= {
        "predictor.model_id": "wandit",
        "predictor.model_type": kind,
        "predictor.patch_size": (1, 2, 2),
        "predictor.in_dim": 2 * latents + 4 if images else latents,
        "predictor.out_dim": latents,
        "predictor.img_dim": 1280,
        "predictor.text_dim": 4096,
        "predictor.max_seq_len": 1024,
        "task": "t2v" if kind in ("t2v", "wan2.2-t2v") else "i2v",
        "load_video_features": features,
        "load_text_features": features,
        "ae.dtype": draw.choice(("bf16", "float32")),
        "ae.do_sample": False,
    }
    if kind in ("i2v", "flf2v"):
        values["predictor.clip_token_len"] = 257
    if draw.random() < 0.7:
        points = draw.choice((1000, 500))
        values |= {
            "diffusion.num_train_timesteps": points,
            "diffusion.shift": draw.choice((3.0, 5, 8, 12)),
            "diffusion.sigma_min": draw.choice((0.0, 0.001)),
            "diffusion.extra_one_step": draw.choice((True, False)),
        }
        part = draw.choice(("high", "low", "all"))
        boundary = (
            draw.choice((0.417, 0.358, draw.randint(1, 999) / 1000))
            if points == 1000
            else draw.randint(1, 499) / 500
        )
        if int(boundary * points) / points != boundary:
            boundary = 0.5
        values["diffusion.min_timestep_boundary"] = boundary if part == "low" else 0.0
        values["diffusion.max_timestep_boundary"] = boundary if part == "high" else 1.0
    return values


def data_values(draw: random.Random, features: bool) -> dict[str, Any]:
    """A data.json."""
    single = frozenset(row.path for row in rows("data.json") if ".tokenizer_config[]" in row.path)
    listed = frozenset(row.path for row in rows("data.json") if ".tokenizer_config." in row.path)
    methods = frozenset(row.path for row in rows("data.json") if "text_preprocess_methods" in row.path)
    values = some(
        draw, "data.json", draw.choice((0.3, 0.7, 1.0)), draw.choice((single, listed)) | methods | OWN_VALUES
    )
    form = draw.choice(("", "[]"))
    values[f"dataset_param.text_preprocess_methods{form}.method"] = "basic_clean"
    values["dataset_param.dataset_type"] = "feature" if features else "t2v"
    height, width = draw.choice(((480, 832), (720, 1280), (704, 1280), (256, 256)))
    if height % 32 or width % 32:
        values.pop(f"{PRE}.hw_stride", None)
    values |= {
        f"{PRE}.num_frames": draw.choice((49, 81)),
        # Of a clip of one frame, which is given, nothing would be left to make.
        f"{PRE}.min_num_frames": draw.choice((5, 29)),
        f"{PRE}.max_height": 64 * (height // 64),
        f"{PRE}.max_width": 64 * (width // 64),
        f"{PRE}.hw_stride": draw.choice((8, 16, 32)),
        f"{PRE}.speed_factor": 1.0,
    }
    values[f"{PRE}.max_hxw"] = values[f"{PRE}.max_height"] * values[f"{PRE}.max_width"]
    return values


def chains(draw: random.Random) -> list[dict[str, Any]]:
    """The transforms of a clip."""
    if draw.random() < 0.3:
        return [{"trans_type": "ResizeVideo", "param": {"mode": "resize"}}, {"trans_type": "ToTensorVideo"}]
    flip = {"trans_type": "RandomHorizontalFlipVideo", "param": {"p": 0.5}}
    return [
        {
            "trans_type": "ResizeVideo",
            "param": {"transform_size": "auto", "mode": "shortside", "antialias": True},
        },
        {"trans_type": "ToTensorVideo"},
        *([flip] if draw.random() < 0.3 else []),
        {"trans_type": "norm_fun", "param": {"mean": 0.5, "std": 0.5}},
        {"trans_type": "CenterCropResizeVideo", "param": {"transform_size": "auto"}},
    ]


def yaml_values(draw: random.Random, layers: int) -> dict[str, Any]:
    """An FSDP2 YAML."""
    values = some(draw, "fsdp2.yaml", draw.choice((0.5, 1.0)))
    values["sharding_size"] = draw.choice(("auto", 8, None))
    values["sub_modules_to_wrap"] = draw.choice(
        (
            ["predictor.blocks.{*}", "predictor.head"],
            ["predictor.blocks.{*}"],
            [f"predictor.blocks.{{0-{layers - 1}}}"],
        )
    )
    values["param_dtype"], values["reduce_dtype"] = draw.choice(
        (("bf16", "fp32"), ("bf16", "bf16"), ("fp32", "fp32"))
    )
    values["ignored_modules"] = ["ae", "text_encoder"]
    if draw.random() < 0.7:
        values["recompute_modules"] = ["predictor.blocks.{*}"]
    return values
