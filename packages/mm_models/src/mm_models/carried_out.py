"""What training and generation carry out alike of models, encoders and runtimes."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.schema import Problem
from mm_config.specs import AttentionImpl, CompileMode, CompileSpec

PART_FIELDS = frozenset(
    {
        "model.conditioning",
        "model.image_dim",
        "model.image_positions",
        "image_encoder",
        "autoencoder.weights.digest",
        "autoencoder.tile_size",
        "autoencoder.tile_stride",
        "autoencoder.patch_size",
        "autoencoder.decoder_base_dim",
        "autoencoder.is_residual",
        "text_encoder.weights.digest",
        "text_encoder.truncate",
        "runtime.attention",
        "runtime.deterministic",
        "runtime.npu",
    }
)
"""Paths in a spec, without its root."""


def determinism_problems(wanted: bool, attention: AttentionImpl, compiled: CompileSpec) -> Iterator[Problem]:
    """What of a runtime has no deterministic form; paths are those in a spec."""
    if not wanted:
        return
    if attention is AttentionImpl.CUDNN:
        message = "is cudnn, which has no deterministic form; auto, sdpa, flash_2, flash_3 and reference have"
        yield Problem("runtime.attention", message)
    if compiled.enabled and compiled.mode in (
        CompileMode.MAX_AUTOTUNE,
        CompileMode.MAX_AUTOTUNE_NO_CUDAGRAPHS,
    ):
        message = (
            f"is {compiled.mode.value}, which chooses kernels by their times; deterministic needs default"
        )
        yield Problem("compile.mode", message)
