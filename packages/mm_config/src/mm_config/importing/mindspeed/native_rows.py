"""Rows of the native FSDP2 YAML (MindSpeed-MM 26.x), but for what it shares with the JSON files.

Its sections `model`, `data` and `tools` hold the keys of model.json, data.json and tools.json; see `table`.
"""

from __future__ import annotations

from mm_config.importing.mindspeed.words import DECAY, FSDP_DTYPE
from mm_config.importing.rows import Row, dead, derived, group, mapped, misspelt, of_kind, outside, refused
from mm_config.importing.values import COUNT, at_least, choice, optional, real, switch, whole
from mm_config.specs.lora import LoraInit

_PLAN = "parallel.fsdp_plan"
_EXPERTS = "of mixtures of experts inside a block, which Wan has not"
_LANGUAGE = "of language models"
_OLD = (
    "until 26.0 it switched recomputation on; from 26.1 on it drives nothing, and the run recomputes nothing"
)
_STATE = "a checkpoint here holds the whole state; `--resume` goes on from it exactly"
_NOT_NEGATIVE = at_least(0, "is no count", whole)


def _shards(size: object) -> int | None:
    return None if size in ("auto", None) else COUNT(size)


_PARALLEL: tuple[Row, ...] = (
    *group("parallel", _PLAN, "parallel.tp_plan", "parallel.ep_plan", "parallel.recompute_plan"),
    derived("parallel.data_parallel_size", "is what the other degrees leave of the ranks"),
    mapped("parallel.fully_shard_parallel_size", "fsdp.shard_size", _shards),
    derived("parallel.tensor_parallel_size", "MindSpeed-MM itself raises on any other", 1),
    mapped("parallel.ring_attention_size", "parallel.ring", COUNT),
    mapped("parallel.ulysses_parallel_size", "parallel.ulysses", COUNT),
    misspelt(
        "parallel.context_parallel_size",
        "parallel.ulysses_parallel_size or parallel.ring_attention_size",
        "no code reads it",
    ),
    derived("parallel.expert_parallel_size", _EXPERTS, 1),
    dead("parallel.expert_fully_shard_parallel_size", _EXPERTS),
    mapped(f"{_PLAN}.ignored_modules", "fsdp.ignore", None),
    mapped(f"{_PLAN}.apply_modules", "fsdp.wrap", None),
    mapped(f"{_PLAN}.param_dtype", "precision.compute", optional(FSDP_DTYPE)),
    mapped(f"{_PLAN}.reduce_dtype", "precision.reduce", optional(FSDP_DTYPE)),
    mapped(f"{_PLAN}.output_dtype", "precision.output", optional(FSDP_DTYPE)),
    derived(f"{_PLAN}.cast_forward_inputs", "inputs always get the format of the computation", True),
    mapped(f"{_PLAN}.reshard_after_forward", "fsdp.reshard_after_forward", switch),
    mapped(f"{_PLAN}.num_to_forward_prefetch", "fsdp.forward_prefetch", _NOT_NEGATIVE),
    mapped(f"{_PLAN}.num_to_backward_prefetch", "fsdp.backward_prefetch", _NOT_NEGATIVE),
    derived(f"{_PLAN}.pregather", "FSDP2 gathers the next unit by itself", True, False),
    mapped(f"{_PLAN}.cpu_offload", "fsdp.offload", switch),
    derived(f"{_PLAN}.hook_modules", "FSDP2's own hooks are used", (), None),
    misspelt("parallel.recompute", "features.recompute", _OLD),
    misspelt("parallel.recompute_plan.apply_modules", "features.recompute_plan.apply_modules", _OLD),
    misspelt("parallel.recompute_plan.use_reentrant", "features.recompute_plan.use_reentrant", _OLD),
)

_FEATURES: tuple[Row, ...] = (
    *group("features", "features.recompute_plan", "features.loss_cfg"),
    mapped("features.recompute", "recompute.mode", None),
    mapped("features.recompute_plan.apply_modules", "recompute.modules", None, when="native_recompute"),
    dead("features.recompute_plan.use_reentrant", "names one of two implementations of the same"),
    derived("features.loss_cfg.loss_type", "the loss is flow matching's", "raw"),
    derived("features.enable_chunk_loss", _LANGUAGE, False),
    derived("features.enable_dynamic_chunk_loss", _LANGUAGE, False),
    mapped("features.enable_activation_offload", "recompute.offload", switch),
    derived("features.enable_chunk_mbs", "micro-batches are never cut here", False),
    derived("features.enable_ep_balance", _EXPERTS, False),
    derived("features.skip_moe_pad_tokens", _EXPERTS, False),
)

_TRAINING: tuple[Row, ...] = (
    *group("training", "training.lora", "training.quantization_plan"),
    mapped("training.lr", "optim.lr", real, default=5e-5),
    mapped("training.lr_min", "schedule.final_ratio", None, when="native_decay"),
    mapped("training.lr_start", "schedule.warmup_ratio", None, when="native_warmup"),
    mapped("training.weight_decay", "optim.weight_decay", real),
    mapped("training.adam_beta1", "optim.betas.0", real),
    mapped("training.adam_beta2", "optim.betas.1", real),
    mapped("training.adam_eps", "optim.eps", real),
    derived("training.adam_fused", "the fastest AdamW of the device is used", True, False),
    derived("training.optimizer", "the spec's class is AdamW", "adamw"),
    mapped("training.clip_grad", "optim.max_grad_norm", real),
    derived("training.clip_grad_foreach", "names one of two implementations of the same", True, False),
    mapped("training.micro_batch_size", "runtime.micro_batch_size", COUNT),
    mapped("training.gradient_accumulation_steps", "data.batch_size", None),
    mapped("training.lr_warmup_ratio", "schedule.warmup_steps", None),
    mapped("training.lr_decay_style", "schedule.decay", DECAY),
    derived("training.lr_decay_ratio", "the learning rate falls over all steps", 1.0),
    mapped("training.load", "start_from", None),
    derived("training.load_format", _STATE, "auto", "hf", "dcp"),
    derived("training.load_strict", "weights always have to fit", True),
    derived("training.load_rank0_and_broadcast", "weights are loaded shard by shard", True, False),
    mapped("training.save", "--runs-dir", None),
    derived("training.save_format", _STATE, "auto", "hf", "dcp"),
    mapped("training.save_async", "checkpoint.asynchronous", switch),
    mapped("training.save_interval", "checkpoint.every_steps", COUNT),
    derived("training.no_load_optim", "a run that starts from weights begins with new moments", True, False),
    derived("training.no_load_rng", "a run that starts from weights begins with its own seed", True, False),
    derived("training.no_save_optim", _STATE, True, False),
    derived("training.no_save_rng", _STATE, True, False),
    mapped("training.log_interval", "runtime.log_every", COUNT),
    mapped("training.train_iters", "schedule.steps", COUNT),
    refused("training.train_epochs", "a schedule is counted in steps: give train_iters"),
    mapped("training.seed", "seed", at_least(0, "is no seed", whole), default=42),
    derived("training.init_model_with_meta_device", "weights are loaded shard by shard", True, False),
    mapped("training.use_deter_comp", "runtime.deterministic", switch),
    mapped("training.allow_hf32", "precision.allow_tf32", switch),
    dead("training.max_steps", "is declared, but nothing reads it"),
    dead("training.save_steps", "is declared, but nothing reads it"),
    dead("training.load_checkpoint_path", "is declared, but nothing reads it"),
    dead("training.enable_full_determinism", "is declared, but nothing reads it"),
    outside("training.plugin", "names Python modules to import; packages register themselves here"),
    mapped("training.lora.enable", "lora", None),
    mapped("training.lora.rank", "lora.rank", COUNT, when="lora", default=8),
    mapped("training.lora.alpha", "lora.alpha", real, when="lora", default=16),
    mapped("training.lora.dropout", "lora.dropout", real, when="lora"),
    mapped("training.lora.target_modules", "lora.targets", None, when="lora"),
    mapped(
        "training.lora.init_lora_weights",
        "lora.init",
        choice({True: LoraInit.KAIMING, "gaussian": LoraInit.GAUSSIAN}),
        when="lora",
    ),
)

_REST: tuple[Row, ...] = (
    *group("model", "data", "tools", "data.dataset_param", "data.dataloader_param"),
    derived("model.model_id", "the family follows from the network's sizes"),
    mapped("model.model_name_or_path", "--location", None),
    derived("model.trust_remote_code", "no code comes with weights here", False),
    derived("model.attn_implementation", "runtime.attention chooses among exact kernels"),
    mapped("data.dataloader_param.num_workers", "data.workers", COUNT, default=2),
    derived("data.dataloader_param.enable_preload", "batches are prepared ahead", True, False),
)

NATIVE: tuple[Row, ...] = of_kind("native.yaml", *_PARALLEL, *_FEATURES, *_TRAINING, *_REST)
