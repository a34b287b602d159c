"""Random legal configurations of MindSpeed-MM: a model.json, a data.json, a YAML, a tools.json, a script."""

from __future__ import annotations

import json
import random
from pathlib import Path
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


def flag_values(draw: random.Random, model: dict[str, Any]) -> dict[str, Any]:
    """The flags of a launch script."""
    heads = model["predictor.num_heads"]
    degree = draw.choice([size for size in (1, 2, 4) if heads % size == 0])
    micro, steps = draw.choice((1, 2)), draw.choice((1000, 5000))
    values = some(draw, "shell flag", draw.choice((0.2, 0.6)), frozenset())
    lr = draw.choice(("1e-5", "5e-6", "0.0001"))
    values |= {
        "--context-parallel-size": degree,
        "--context-parallel-algo": draw.choice(("ulysses_cp_algo", "megatron_cp_algo")),
        "--attention-mask-type": "general",
        "--micro-batch-size": micro,
        "--global-batch-size": 8 // degree * micro * draw.choice((1, 2)),
        "--train-iters": steps,
        "--lr": lr,
        "--min-lr": draw.choice(("0", lr)),
        "--lr-warmup-init": "0",
        "--pipeline-model-parallel-size": 1,
        "--tensor-model-parallel-size": 1,
        "--save": "ckpt/saved",
        "--load": "ckpt/transformer",
        "--use-torch-fsdp2": True,
        "--mm-model": "./model.json",
    }
    # With the YAML's recomputation Megatron's has to be off; adapters need their layers.
    for flag in ("--recompute-granularity", "--recompute-method", "--recompute-skip-core-attention"):
        values.pop(flag, None)
    if draw.random() < 0.3:
        values |= {"--lora-r": 16, "--lora-alpha": 32, "--lora-target-modules": "proj_q,proj_k,ffn.0"}
    else:
        for flag in [flag for flag in values if flag.startswith("--lora")]:
            del values[flag]
    return values


def layerzero_values(draw: random.Random) -> dict[str, Any]:
    """A LayerZero YAML."""
    values = some(draw, "layerzero.yaml", 1.0)
    return {
        **values,
        "transformer_layers": ["mindspeed_mm.models.predictor.dits.wan_dit.WanDiTBlock"],
        "param_dtype": "bf16",
        "reduce_dtype": "fp32",
        "ignored_modules": ["ae", "text_encoder"],
    }


def sharded_by_layerzero(draw: random.Random, flags: dict[str, Any], layers: int) -> dict[str, Any]:
    """The flags with LayerZero and Megatron's recomputation in place of FSDP2."""
    kept = {flag: value for flag, value in flags.items() if flag != "--use-torch-fsdp2"}
    count = draw.randint(1, layers)
    kept |= {"--layerzero": True, "--bf16": True, "--recompute-granularity": "full"}
    kept |= {"--recompute-method": "block", "--recompute-num-layers": count}
    if draw.random() < 0.5:
        kept |= {"--recompute-skip-core-attention": True, "--recompute-num-layers-skip-core-attention": count}
    return kept


def script(draw: random.Random, flags: dict[str, Any]) -> str:
    """A launch script with variables, arithmetic, exports and continuations."""
    exports = some(draw, "environment variable", 0.5)
    lines = ["#!/bin/bash", *(f"export {name}={value}" for name, value in exports.items())]
    lines += [
        "NPUS_PER_NODE=8",
        "NNODES=1",
        "WORLD_SIZE=$(($NPUS_PER_NODE*$NNODES))",
        f"MBS={flags['--micro-batch-size']}",
    ]
    words = {**flags, "--micro-batch-size": "${MBS}"}
    body = [f"    {flag}" if value is True else f"    {flag} {value} " for flag, value in words.items()]
    lines += ['GPT_ARGS="', *(f"{line} \\" for line in body), '"']
    lines += [
        "torchrun --nproc_per_node $NPUS_PER_NODE --nnodes $NNODES pretrain_sora.py \\",
        "    $GPT_ARGS \\",
    ]
    lines += ["    2>&1 | tee logs/train.log"]
    return "\n".join(lines) + "\n"


def write_inference(folder: Path, number: int) -> list[Path]:
    """The files of one case of generation."""
    draw = random.Random(number)
    values = some(draw, "inference_model.json", draw.choice((0.4, 0.8, 1.0)))
    kind = draw.choice(("t2v", "wan2.2-t2v", "ti2v", "i2v", "flf2v", "wan2.2-i2v"))
    images = kind in ("i2v", "flf2v", "wan2.2-i2v")
    values |= {f"predictor.{name}": value for name, value in draw.choice(NETWORKS).items()}
    values |= {
        "predictor.model_id": "wandit",
        "predictor.model_type": kind,
        "predictor.in_dim": 36 if images else 16,
        "predictor.out_dim": 16,
        "predictor.img_dim": 1280,
        "predictor.text_dim": 4096,
        "ae.do_sample": False,
        "pipeline_class": "WanPipeline",
        "dtype": "bf16",
    }
    if "boundary_ratio" in values:
        values["low_noise_predictor"] = "ckpt/transformer_2"
    flags = {
        "--micro-batch-size": draw.choice((1, 2)),
        "--tensor-model-parallel-size": draw.choice((1, 2)),
        "--context-parallel-size": draw.choice((1, 2)),
        "--context-parallel-algo": draw.choice(("ulysses_cp_algo", "megatron_cp_algo")),
        "--attention-mask-type": "general",
        "--seed": draw.choice((1, 42)),
        "--lr": "5e-6",
        "--train-iters": 5010,
        "--clip-grad": "0.0",
        "--load": "ckpt/transformer",
    }
    text = script(draw, flags).replace("pretrain_sora.py", "inference_sora.py")
    files = {"inference_model.json": json.dumps(nested(values), indent=2), "inference.sh": text}
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")
    return [folder / name for name in files]


def write_case(folder: Path, number: int) -> tuple[list[Path], random.Random]:
    """The files of one case."""
    draw = random.Random(number)
    features = draw.random() < 0.25
    model, data = model_values(draw, features), data_values(draw, features)
    tree = nested(data)
    tree["dataset_param"]["preprocess_parameters"].setdefault("train_pipeline", {})["video"] = chains(draw)
    layers = model["predictor.num_layers"]
    flags, name, sharding = flag_values(draw, model), "fsdp2.yaml", yaml_values(draw, layers)
    if draw.random() < 0.2:
        flags, name = sharded_by_layerzero(draw, flags, layers), "layerzero.yaml"
        sharding = layerzero_values(draw)
    files = {
        "model.json": json.dumps(nested(model), indent=draw.choice((None, 2))),
        "data.json": json.dumps(tree, indent=2),
        name: json.dumps(sharding, indent=2),
        # MindSpeed-MM wants all keys of tools.json, even of what is switched off.
        "tools.json": json.dumps(nested(some(draw, "tools.json", 1.0)), indent=2),
        "pretrain.sh": script(draw, flags),
    }
    written = [folder / name for name in files if draw.random() < 0.9 or name == "model.json"]
    for file in written:
        file.write_text(files[file.name], "utf-8")
    return written, draw
