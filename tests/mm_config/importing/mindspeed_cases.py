"""Random legal configurations of MindSpeed-MM: model.json, data.json, a YAML, tools.json and a script."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.mm_config.importing.mindspeed_samples import some
from tests.mm_config.importing.mindspeed_values import (
    NETWORKS,
    chains,
    data_values,
    model_values,
    nested,
    yaml_values,
)


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
        kept |= {"--recompute-skip-core-attention": True, "--recompute-num-layers-skip-core-attention": 0}
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
