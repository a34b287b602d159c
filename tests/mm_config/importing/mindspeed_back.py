"""What MindSpeed-MM's files said, made of the specs that became of them: the table's rows the other way."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from mm_config.importing.mindspeed.boundaries import points_above
from mm_config.importing.mindspeed.keys import MAX, MIN
from mm_config.importing.mindspeed.table import TABLE
from mm_config.importing.nodes import Leaf
from mm_config.importing.rows import Row
from mm_config.importing.verdict import Verdict
from mm_config.npu.variables import VARIABLES, is_set
from mm_config.schema.evolve import get
from mm_config.schema.fields import ABSENT
from mm_config.specs.data import Order, Reader, Resize
from mm_config.specs.diffusion import Expert, Solver
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import LatentMode
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.lora import LoraInit, LoraSpec
from mm_config.specs.monitoring import Stacks
from mm_config.specs.optim import Decay, MuonSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.train import TrainSpec

_PRE = "dataset_param.preprocess_parameters"


def values(spec: TrainSpec | InferSpec) -> dict[tuple[str, str], Leaf]:
    """The value of each mapped key that the spec has one for, by kind and path with `[]`.

    Keys are those of training for a training spec, else those of generation. Numbers of scripts are numbers.
    """
    found: dict[tuple[str, str], Leaf] = {}
    for row in TABLE.rows:
        value = _value(row, spec)
        if value is not ABSENT:
            found[row.kind, row.path] = value
    return found


def _value(row: Row, spec: TrainSpec | InferSpec) -> Any:
    generation = isinstance(spec, InferSpec)
    if row.verdict is not Verdict.MAPPED or generation is not _of_generation(row, generation):
        return ABSENT
    special = (_GENERATION if generation else _TRAINING).get(row.path)
    if special is not None:
        return special(spec)
    target = row.infer if generation and row.kind == "shell flag" else row.target
    if row.read is None or not target or "," in target or target.startswith("--"):
        return ABSENT
    try:
        ours = get(spec, target)
    except (ValueError, StopIteration, TypeError):
        return ABSENT
    return _theirs(row, target, ours)


_FORMS = {variable.name: variable.form for variable in VARIABLES}
_WORDS: dict[Any, Leaf] = {
    Dtype.BFLOAT16: "bf16",
    Dtype.FLOAT32: "fp32",
    Dtype.FLOAT16: "fp16",
    LatentMode.MODE: False,
    LatentMode.SAMPLE: True,
    Reader.DECORD: "DecordVideo",
    Reader.PYAV: "AvVideo",
    Decay.CONSTANT: "constant",
    Decay.LINEAR: "linear",
    Decay.COSINE: "cosine",
    Stacks.PYTHON: "python",
    Stacks.ALL: "all",
    Solver.UNIPC: "UniPCMultistepScheduler",
    Solver.DPMPP_2M: "DPMSolverMultistepScheduler",
    LoraInit.KAIMING: True,
    LoraInit.GAUSSIAN: "gaussian",
}


def _theirs(row: Row, target: str, ours: Any) -> Any:
    """A value of one field as the file says it."""
    if row.kind == "environment variable":
        return _FORMS[row.path].write(ours) if is_set(ours) else ABSENT
    if target == "fsdp.shard_size":
        return "auto" if ours is None else ours
    if target == "profiler.npu_level":
        return f"level{ours}"
    if target.endswith(".ranks"):
        return ours or (-1,)
    if row.path in ("ae.tiling_param.tile_size", "ae.tiling_param.tile_stride"):
        return tuple(pixels // 8 for pixels in ours)
    return _WORDS[ours] if isinstance(ours, enum.Enum) else ours


_MODULES = {
    "proj_out": "head",
    "patch_embedding": "patch_embedding",
    "condition_embedder.text_embedder": "text_embedding",
    "condition_embedder.time_embedder": "time_embedding",
    "condition_embedder.time_proj": "time_projection",
    "condition_embedder.image_embedder": "img_emb",
}
_PARTS = {"attn1": "self_attn", "attn2": "cross_attn", "ffn": "ffn"}
_LORA = {
    "blocks.*.attn*.to_q": "proj_q",
    "blocks.*.attn*.to_k": "proj_k",
    "blocks.*.attn*.to_v": "proj_v",
    "blocks.*.attn*.to_out.0": "proj_out",
    "blocks.*.ffn.net.0.proj": "ffn.0",
    "blocks.*.ffn.net.2": "ffn.2",
}


def _module(pattern: str) -> str:
    """`blocks.*` as `predictor.blocks.{*}`."""
    if pattern in _MODULES:
        return f"predictor.{_MODULES[pattern]}"
    _, block, *inside = pattern.split(".")
    return ".".join(
        ["predictor.blocks", "{*}" if block == "*" else block, *(_PARTS[part] for part in inside)]
    )


def _fractions(spec: TrainSpec) -> tuple[float, float]:
    """The least and the largest fraction of the index axis that the expert is trained on."""
    grid = spec.diffusion
    if spec.expert is Expert.SINGLE or grid.boundary is None:
        return 0.0, 1.0
    fraction = points_above(grid, grid.boundary) / grid.num_train_timesteps
    return (0.0, fraction) if spec.expert is Expert.HIGH_NOISE else (fraction, 1.0)


def _of_generation(row: Row, generation: bool) -> bool:
    if row.kind in ("shell flag", "environment variable"):
        return generation
    return row.kind == "inference_model.json"


def _conditioning(spec: Any) -> Leaf:
    words = {
        Conditioning.TEXT: "t2v",
        Conditioning.CLEAN_FIRST_FRAME: "ti2v",
        Conditioning.FIRST_AND_LAST_FRAME: "flf2v",
        Conditioning.FIRST_FRAME: "wan2.2-i2v" if spec.model.image_dim is None else "i2v",
    }
    return words[spec.model.conditioning]


def _algorithm(parallel: Any) -> Leaf:
    if parallel.ulysses > 1 and parallel.ring > 1:
        return "hybrid_cp_algo"
    return "ulysses_cp_algo" if parallel.ulysses > 1 else "megatron_cp_algo"


def _bf16(spec: TrainSpec) -> Any:
    return True if spec.precision.compute is Dtype.BFLOAT16 else ABSENT


def _adapters(spec: TrainSpec) -> Any:
    return ABSENT if spec.lora is None else tuple(_LORA[target] for target in spec.lora.targets)


def _recomputed(spec: TrainSpec) -> Any:
    full = spec.recompute.mode is not Recompute.NONE
    return tuple(map(_module, spec.recompute.modules)) if full else None


def _recomputed_layers(spec: TrainSpec) -> Any:
    if spec.recompute.mode is Recompute.NONE:
        return ABSENT
    pattern = spec.recompute.modules[0].removeprefix("blocks.")
    if pattern == "*":
        return spec.model.num_layers
    return int(pattern.strip("{}").rpartition("-")[2]) + 1


def _features(name: str) -> Callable[[TrainSpec], Leaf]:
    def value(spec: TrainSpec) -> Leaf:
        return spec.data.precomputed is not None and getattr(spec.data.precomputed, name)

    return value


def _ratio(name: str) -> Callable[[TrainSpec], Leaf]:
    return lambda spec: getattr(spec.schedule, name) * spec.optim.lr


def _selection(spec: TrainSpec) -> Leaf:
    return "fused_torch_adamw" if spec.ema is None else "fused_ema_adamw"


_TRAINING: dict[str, Callable[[Any], Any]] = {
    "predictor.model_type": _conditioning,
    MIN: lambda spec: _fractions(spec)[0],
    MAX: lambda spec: _fractions(spec)[1],
    "load_video_features": _features("latents"),
    "load_text_features": _features("text"),
    "dataset_param.dataset_type": lambda spec: "t2v" if spec.data.precomputed is None else "feature",
    f"{_PRE}.auto_interval": lambda spec: spec.data.frame_interval is None,
    f"{_PRE}.force_resolution": lambda spec: spec.data.resize is not Resize.AREA,
    f"{_PRE}.min_hxw": lambda spec: spec.data.min_pixels,
    f"{_PRE}.hw_stride": lambda spec: spec.data.size_multiple,
    f"{_PRE}.hw_aspect_thr": lambda spec: spec.data.max_aspect_ratio,
    f"{_PRE}.train_pipeline.video[].trans_type": lambda spec: "CenterCropResizeVideo",
    f"{_PRE}.train_pipeline.video[].param.mode": lambda spec: "resize",
    f"{_PRE}.train_pipeline.video[].param.p": lambda spec: spec.data.flip_share,
    "dataloader_param.sampler_type": lambda spec: (
        "SequentialSampler" if spec.data.order is Order.SEQUENTIAL else "LengthGroupedSampler"
    ),
    "dataloader_param.shuffle": lambda spec: spec.data.order is Order.SHUFFLED,
    "sub_modules_to_wrap": lambda spec: tuple(map(_module, spec.fsdp.wrap)),
    "ignored_modules": lambda spec: ("ae", "text_encoder", *map(_module, spec.fsdp.ignore)),
    "recompute_modules": _recomputed,
    "profile.enable": lambda spec: spec.profiler is not None,
    "memory_profile.enable": lambda spec: spec.memory_snapshot is not None,
    "--context-parallel-size": lambda spec: spec.parallel.ulysses * spec.parallel.ring,
    "--context-parallel-algo": lambda spec: _algorithm(spec.parallel),
    "--ulysses-degree-in-cp": lambda spec: spec.parallel.ulysses,
    "--min-lr": _ratio("final_ratio"),
    "--lr-warmup-init": _ratio("warmup_ratio"),
    "--optimizer": lambda spec: "muon" if isinstance(spec.optim, MuonSpec) else "adam",
    "--optimizer-selection": _selection,
    "--bf16": _bf16,
    "--downcast-to-bf16": _bf16,
    "--recompute-granularity": lambda spec: "full" if spec.recompute.mode is not Recompute.NONE else ABSENT,
    "--recompute-method": lambda spec: "block",
    "--recompute-num-layers": _recomputed_layers,
    "--lora-target-modules": _adapters,
    "training.lora.enable": lambda spec: isinstance(spec.lora, LoraSpec),
    "training.lora.target_modules": _adapters,
    "training.lr_min": _ratio("final_ratio"),
    "training.lr_start": _ratio("warmup_ratio"),
    "training.lr_warmup_ratio": lambda spec: spec.schedule.warmup_steps / spec.schedule.steps,
    "training.gradient_accumulation_steps": lambda spec: (
        spec.data.batch_size // (spec.runtime.micro_batch_size or 1)
    ),
    "parallel.fsdp_plan.apply_modules": lambda spec: tuple(map(_module, spec.fsdp.wrap)),
    "parallel.fsdp_plan.ignored_modules": lambda spec: (
        "ae",
        "text_encoder",
        *map(_module, spec.fsdp.ignore),
    ),
    "features.recompute": lambda spec: spec.recompute.mode is not Recompute.NONE,
    "features.recompute_plan.apply_modules": _recomputed,
}
"""Keys that are read together with others, in a training spec."""


def _guidance(spec: InferSpec) -> Leaf:
    high, low = spec.sampler.guidance_high_noise, spec.sampler.guidance_low_noise
    return high if high == low else (high, low)


_GENERATION: dict[str, Callable[[Any], Any]] = {
    "predictor.model_type": _conditioning,
    "diffusion.guidance_scale": _guidance,
    "pipeline_config.input_size": lambda spec: (spec.num_frames, spec.height, spec.width),
    "pipeline_config.cpu_offload": lambda spec: spec.runtime.residency.experts.value == "swap",
    "pipeline_config.seed": lambda spec: spec.samples.seeds[0],
    "prompt": lambda spec: spec.samples.prompts[0] if spec.samples.prompts else ABSENT,
    "--seed": lambda spec: spec.samples.seeds[0],
    "--context-parallel-size": lambda spec: spec.runtime.parallel.ulysses * spec.runtime.parallel.ring,
    "--context-parallel-algo": lambda spec: _algorithm(spec.runtime.parallel),
}
"""The same in an inference spec."""
