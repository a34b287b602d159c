"""What this package makes of a training spec, and the refusal of all else."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from mm_config.rules import CarriedOut
from mm_config.schema import Problem, UserError, tag_of
from mm_config.specs import AdamWSpec, TimestepScope, TrainSpec
from mm_models import PART_FIELDS, determinism_problems, ring_problems, tags_of

RUNNER = "training"


def check_carried_out(spec: TrainSpec) -> None:
    """Refuses what training would have to ignore.

    Raises:
        UserError: All of it.
    """
    if found := list(CARRIED_OUT.refusals(spec)):
        raise UserError(found)


def _value_problems(spec: TrainSpec) -> Iterator[Problem]:
    """Values of known fields that training can't do yet."""
    if tag_of(spec.optim) not in (known := tags_of("mm.optimizers")):
        shown, installed = type(spec.optim).__name__, ", ".join(known) or "none"
        yield Problem("optim", f"is {shown}, for which no optimizer is installed; installed: {installed}")
    if isinstance(spec.optim, AdamWSpec) and spec.optim.state_bits == 8 and find_spec("torchao") is None:
        yield Problem("optim.state_bits", "is 8, which needs torchao: pip install 'mm-train[torchao]'")
    if isinstance(spec.optim, AdamWSpec) and spec.optim.state_bits == 8 and spec.parallel.tensor > 1:
        message = f"is 8, whose blocks parallel.tensor {spec.parallel.tensor} would cut; take 32, or tensor 1"
        yield Problem("optim.state_bits", message)
    yield from determinism_problems(spec.runtime.deterministic, spec.runtime.attention, spec.compile)
    yield from ring_problems(spec.parallel.ring, spec.runtime.attention)
    if spec.diffusion.timesteps_per is TimestepScope.MICRO_BATCH:
        yield Problem(
            "diffusion.timesteps_per",
            "is micro_batch, whose size belongs to execution; say diffusion.clips_per_level instead",
        )


CARRIED_OUT = CarriedOut(
    runner=RUNNER,
    fields=PART_FIELDS
    | {
        "checkpoint.asynchronous",
        "checkpoint.keep_every",
        "start_from.average",
        "start_from.digest",
        "start_mode",
        "ema",
        "samples",
        "validation",
        "data.buckets",
        "data.captions",
        "data.dataset.caption",
        "data.dataset.colours",
        "data.dataset.digest",
        "data.dataset.piece_count",
        "data.dataset.start",
        "data.drop_short_share",
        "data.flip_share",
        "data.frame_dropout",
        "data.frame_interval",
        "data.interpolation",
        "data.isolated",
        "data.max_aspect_ratio",
        "data.max_bad_clips",
        "data.min_num_frames",
        "data.min_pixels",
        "data.order",
        "data.pin_memory",
        "data.precomputed",
        "data.prefetch",
        "data.prefetch_mib",
        "data.resize",
        "data.shuffle_block",
        "data.size_multiple",
        "data.speed_factor",
        "data.start",
        "data.tails",
        "data.tokens_per_batch",
        "data.variants",
        "diffusion.clips_per_level",
        "diffusion.logit_mean",
        "diffusion.logit_std",
        "diffusion.mode_scale",
        "diffusion.sampling",
        "diffusion.timesteps_per",
        "diffusion.sigma_max",
        "diffusion.sigma_min",
        "diffusion.drop_last",
        "frozen",
        "fsdp.backward_prefetch",
        "fsdp.blocks_per_unit",
        "fsdp.forward_prefetch",
        "fsdp.ignore",
        "fsdp.offload",
        "fsdp.reshard_size",
        "fsdp.shard_size",
        "lora",
        "schedule.warmup_ratio",
        "schedule.decay_steps",
        "compile",
        "optim.adaptive_clip_decay",
        "optim.groups",
        "optim.state_bits",
        "parallel.ring",
        "parallel.tensor",
        "parallel.ulysses",
        "precision.output",
        "precision.allow_tf32",
        "precision.float32_residual",
        "recompute.mode",
        "recompute.modules",
        "recompute.offload",
        "recompute.offload_ahead",
        "runtime.encode_ahead",
        "runtime.offload_encoders",
        "runtime.shard_encoders",
        "memory_snapshot",
        "profiler",
        "runtime.tensorboard",
        "runtime.timeout_minutes",
        "runtime.timeout_seconds",
        "runtime.wandb_project",
    },
    problems=_value_problems,
)
