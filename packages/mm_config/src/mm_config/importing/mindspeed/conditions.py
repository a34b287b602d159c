"""Under which conditions keys are read at all."""

from __future__ import annotations

from mm_config.importing.mindspeed.book import Book
from mm_config.importing.mindspeed.data_rows import PRE
from mm_config.importing.mindspeed.network import has_image_branch
from mm_config.importing.mindspeed.rows import FLAG

WHY_NOT = {
    "cp": "there is no context parallelism",
    "custom": "Wan's own class swallows it; only the developer guide's `custom_dit` reads it",
    "decay": "the learning rate never falls",
    "dynamic": "force_resolution is true: clips have one size",
    "ema": "only --optimizer-selection fused_ema_adamw reads it",
    "experts": "there is no boundary_ratio, so one network works at all noise levels",
    "fsdp2": "the script lacks --use-torch-fsdp2, so nothing reads this file",
    "image_branch": "the network has no image branch",
    "interval": "auto_interval is true: frames are taken by train_fps",
    "layerzero": "the script lacks --layerzero, so nothing reads this file",
    "lora": "no adapters are trained",
    "memory": "memory_profile.enable is false",
    "muon": "only --optimizer muon reads it",
    "native_decay": "the learning rate never falls",
    "native_recompute": "features.recompute is false",
    "native_warmup": "there is no warm-up",
    "plain_sampler": "this sampler has its own order",
    "profile": "profile.enable is false",
    "rate": "auto_interval is false: every frame_interval-th frame is taken",
    "raw": "features are read instead of clips",
    "recompute": "--recompute-granularity is missing",
    "short": "drop_short_ratio is 1: all shorter clips are left out",
    "text": "text features are read instead of captions",
    "tiling": "ae.enable_tiling is false",
    "warmup": "there is no warm-up",
}


def conditions(book: Book, kind: str) -> dict[str, bool]:
    """Whether each condition holds.

    Args:
        book: The facts.
        kind: `model.json` or `inference_model.json`, the file of the network.
    """
    raw, script = book.raw, book.has(FLAG)
    features = raw("data.json", "dataset_param.dataset_type") == "feature"
    auto = raw("data.json", f"{PRE}.auto_interval", True) is True
    degree = raw(FLAG, "--context-parallel-size", 1)
    sampler = raw("data.json", "dataloader_param.sampler_type", "stateful_distributed_sampler")
    short = book.get("data.json", f"{PRE}.drop_short_ratio", 1.0)
    adapters = any(book.fact(FLAG, flag) for flag in ("--lora-r", "--lora-alpha", "--lora-target-modules"))
    warmup = book.get(FLAG, "--lr-warmup-iters", 0)
    return {
        "cp": isinstance(degree, int) and degree > 1,
        "custom": raw(kind, "predictor.model_id") == "custom_dit",
        "decay": script and raw(FLAG, "--lr-decay-style", "linear") != "constant",
        "dynamic": raw("data.json", f"{PRE}.force_resolution", True) is False,
        "ema": raw(FLAG, "--optimizer-selection") == "fused_ema_adamw",
        "experts": raw(kind, "boundary_ratio") is not None,
        "fsdp2": not script or book.fact(FLAG, "--use-torch-fsdp2") is not None,
        "image_branch": has_image_branch(book, kind),
        "interval": not auto,
        "layerzero": not script or book.fact(FLAG, "--layerzero") is not None,
        "lora": adapters or raw("native.yaml", "training.lora.enable") is True,
        "memory": raw("tools.json", "memory_profile.enable") is True,
        "muon": raw(FLAG, "--optimizer") == "muon",
        "native_decay": raw("native.yaml", "training.lr_decay_style", "constant") != "constant",
        "native_recompute": raw("native.yaml", "features.recompute") is True,
        "native_warmup": (raw("native.yaml", "training.lr_warmup_ratio") or 0) != 0,
        "plain_sampler": sampler == "stateful_distributed_sampler",
        "profile": raw("tools.json", "profile.enable") is True,
        "rate": auto,
        "raw": not features and raw("model.json", "load_video_features") is not True,
        "recompute": book.fact(FLAG, "--recompute-granularity") is not None,
        "short": isinstance(short, float) and short < 1,
        "text": not features and raw("model.json", "load_text_features") is not True,
        "tiling": raw(kind, "ae.enable_tiling") is True,
        "warmup": isinstance(warmup, int) and warmup > 0,
    }
