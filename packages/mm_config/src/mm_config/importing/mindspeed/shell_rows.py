"""Rows of the launch scripts' flags."""

from __future__ import annotations

from mm_config.importing.mindspeed.keys import FLAG
from mm_config.importing.mindspeed.words import DECAY
from mm_config.importing.rows import Row, dead, derived, mapped, misspelt, of_kind, outside, refused
from mm_config.importing.values import COUNT, at_least, real, switch, whole

_TORCHRUN = "is given to torchrun, see the command"
_FILE = "names a file of the configuration"
_EVALUATION = "Wan's training has no validation data, so nothing is evaluated"
_PIPELINE = "of pipeline parallelism, which is off"
_SEVERAL = "there is one stage: pipeline parallelism is not in our specs"
_MEGATRON = "wants to please Megatron, and changes nothing for FSDP2"
_OVERLAP = "FSDP2 overlaps its communication by itself"
_KERNEL = "names a kernel or a layout of the same sums; runtime chooses kernels here"
_GROUPS = "write optim.groups into the experiment after the import"
_STATE = "a checkpoint here holds the whole state; `--resume` goes on from it exactly"

_LAUNCH: tuple[Row, ...] = (
    outside("--nproc_per_node", _TORCHRUN),
    outside("--nnodes", _TORCHRUN),
    outside("--node_rank", _TORCHRUN),
    outside("--master_addr", _TORCHRUN),
    outside("--master_port", _TORCHRUN),
)

_PARALLEL: tuple[Row, ...] = (
    mapped(
        "--tensor-model-parallel-size", "parallel.tensor", COUNT, infer="runtime.parallel.tensor", default=1
    ),
    derived("--pipeline-model-parallel-size", _SEVERAL, 1),
    derived("--virtual-pipeline-model-parallel-size", _SEVERAL, 1),
    mapped(
        "--context-parallel-size",
        "parallel.ulysses, parallel.ring",
        None,
        infer="runtime.parallel.ulysses, runtime.parallel.ring",
        default=1,
    ),
    mapped(
        "--context-parallel-algo",
        "parallel.ulysses, parallel.ring",
        None,
        when="cp",
        infer="runtime.parallel.ulysses, runtime.parallel.ring",
        default="megatron_cp_algo",
    ),
    mapped(
        "--ulysses-degree-in-cp",
        "parallel.ulysses, parallel.ring",
        None,
        when="cp",
        infer="runtime.parallel.ulysses, runtime.parallel.ring",
    ),
    derived("--attention-mask-type", "every token always sees every other", "general", "causal", when="cp"),
    derived("--cp-window-size", "the ring has one window, and another order of the same sums", when="cp"),
    derived("--use-cp-send-recv-overlap", _KERNEL, True, when="cp"),
    derived("--megatron-cp-in-bnsd", _KERNEL, True, when="cp"),
    derived("--use-fused-ring-attention-update", _KERNEL, True, when="cp"),
    dead("--variable-seq-lengths", _PIPELINE),
    derived("--no-initialization", "weights are loaded shard by shard", True),
    refused("--auto-parallel-mm", "searches degrees instead of training with some"),
    dead("--sequence-parallel", "Wan's blocks have no sequence parallelism of Megatron's"),
    dead("--use-multiparameter-pipeline-model-parallel", _PIPELINE),
    derived("--use-distributed-optimizer", "the optimizer's state is always sharded", True),
    derived("--overlap-grad-reduce", _OVERLAP, True),
    derived("--overlap-param-gather", _OVERLAP, True),
    dead("--optimization-level", "switches MindSpeed's patches of Megatron"),
    derived("--use-torch-fsdp2", "training is always sharded by FSDP2", True),
    derived("--fsdp2-config-path", _FILE),
    derived("--layerzero", "weights are sharded by FSDP2, in copies of fsdp.shard_size ranks", True),
    derived("--layerzero-config", _FILE),
    dead("--untie-embeddings-and-output-weights", _MEGATRON),
    derived("--use-cpu-initialization", "weights are loaded shard by shard", True),
    dead("--no-gradient-accumulation-fusion", _MEGATRON),
    derived("--distributed-backend", "follows from the device", "nccl", "npu:hccl,cpu:gloo", "gloo"),
    mapped("--distributed-timeout-minutes", "runtime.timeout_minutes", COUNT, default=10),
)


_BATCH: tuple[Row, ...] = (
    mapped("--micro-batch-size", "runtime.micro_batch_size", COUNT, infer="runtime.batch_size"),
    mapped("--global-batch-size", "data.batch_size", COUNT),
    mapped(
        "--num-workers",
        "data.workers",
        at_least(1, "0 reads clips in the training's own thread", whole),
        default=2,
    ),
    mapped("--train-iters", "schedule.steps", COUNT),
    mapped("--seed", "seed", at_least(0, "is no seed", whole), default=1234, infer="samples.seeds.0"),
    dead("--eval-interval", _EVALUATION),
    dead("--eval-iters", _EVALUATION),
    mapped("--log-interval", "runtime.log_every", COUNT, default=100),
)

_OPTIMIZER: tuple[Row, ...] = (
    mapped("--lr", "optim.lr", real),
    mapped("--min-lr", "schedule.final_ratio", None, when="decay", default=0.0),
    mapped("--lr-decay-style", "schedule.decay", DECAY, default="linear"),
    mapped(
        "--lr-warmup-iters", "schedule.warmup_steps", at_least(0, "is no number of steps", whole), default=0
    ),
    mapped("--lr-warmup-init", "schedule.warmup_ratio", None, when="warmup", default=0.0),
    mapped("--weight-decay", "optim.weight_decay", real, default=0.01),
    mapped("--adam-beta1", "optim.betas.0", real, default=0.9),
    mapped("--adam-beta2", "optim.betas.1", real, default=0.999),
    mapped("--adam-eps", "optim.eps", real, default=1e-8),
    mapped("--clip-grad", "optim.max_grad_norm", real, default=1.0),
    mapped("--optimizer", "optim", None),
    mapped("--optimizer-selection", "ema", None),
    mapped("--ema-decay", "ema.decay", real, when="ema", default=0.9999),
    mapped("--bf16", "precision.compute", None),
    mapped("--downcast-to-bf16", "precision.compute", None),
    derived("--use-fused-rmsnorm", "names a kernel of the same norm; runtime chooses kernels here", True),
    mapped("--use-deter-comp", "runtime.deterministic", switch),
    mapped("--npu-deterministic", "runtime.deterministic", switch),
    mapped("--muon-momentum", "optim.momentum", real, when="muon", default=0.95),
    mapped("--ns-steps", "optim.newton_schulz_steps", COUNT, when="muon", default=5),
    mapped("--matched-adamw-rms", "optim.matched_adamw_rms", real, when="muon", default=0.2),
    refused("--lr-warmup-fraction", "write its steps: --lr-warmup-iters"),
    refused("--weight-decay-exclude-modules", _GROUPS),
    refused("--lr-scale-modules", _GROUPS),
    refused("--lr-mult", _GROUPS),
)

_RECOMPUTE: tuple[Row, ...] = (
    mapped("--recompute-granularity", "recompute.mode", None),
    mapped("--recompute-method", "recompute.modules", None, when="recompute"),
    mapped("--recompute-num-layers", "recompute.modules", COUNT, when="recompute"),
    mapped("--recompute-skip-core-attention", "recompute.mode", None, when="recompute"),
    derived(
        "--recompute-num-layers-skip-core-attention",
        "one mode holds for all recomputed blocks",
        when="recompute",
    ),
)

_CHECKPOINTS: tuple[Row, ...] = (
    mapped("--load", "start_from", None, infer="high_noise"),
    mapped("--load-base-model", "start_from", None, infer="high_noise"),
    mapped("--save", "--runs-dir", None),
    mapped("--save-interval", "checkpoint.every_steps", COUNT),
    derived("--ckpt-format", _STATE, "torch", "torch_dist", "torch_dcp", "zarr"),
    derived("--no-load-optim", "a run that starts from weights begins with new moments", True),
    derived("--no-load-rng", "a run that starts from weights begins with its own seed", True),
    derived("--no-save-optim", _STATE, True),
    derived("--no-save-rng", _STATE, True),
    derived("--exit-on-missing-checkpoint", "weights that are missing are always an error here", True),
    derived("--finetune", "a run that starts from weights begins at step 0", True),
)

_LORA: tuple[Row, ...] = (
    mapped("--lora-r", "lora.rank", COUNT, when="lora", default=8),
    mapped("--lora-alpha", "lora.alpha", real, when="lora", default=16),
    mapped("--lora-dropout", "lora.dropout", real, when="lora", default=0.0),
    mapped("--lora-target-modules", "lora.targets", None, when="lora"),
    refused("--lora-target-parameters", "adapters belong to layers, which --lora-target-modules names"),
    derived(
        "--lora-register-forward-hook",
        "gradients reach adapters without hooks",
        "patch_embedding",
        when="lora",
    ),
    misspelt("--lora-apply-modules", "model.json's lora_apply_modules", "this flag is parsed and never read"),
    misspelt(
        "--lora-mixed-training", "model.json's lora_mixed_training", "this flag is parsed and never read"
    ),
)

_FILES: tuple[Row, ...] = (
    derived("--mm-data", _FILE),
    derived("--mm-model", _FILE),
    derived("--mm-tool", _FILE),
    derived("--trust-remote-code", "no code that comes with weights is ever run", True),
    derived("--jit-compile", _KERNEL, True),
    derived("--allow-internal-format", _KERNEL, True),
    outside("--tensorboard-dir", "a run folder holds the metrics of its run"),
    dead("--log-tps", "of language models"),
)

FLAGS: tuple[Row, ...] = of_kind(
    FLAG,
    *_LAUNCH,
    *_PARALLEL,
    *_BATCH,
    *_OPTIMIZER,
    *_RECOMPUTE,
    *_CHECKPOINTS,
    *_LORA,
    *_FILES,
    refused("--ref-model", "preference training is not in our specs"),
)
