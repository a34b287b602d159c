"""What training and generation carry out alike of models, encoders and runtimes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from mm_config.schema import Problem
from mm_config.specs import AttentionImpl, CompileMode, CompileSpec, QuantFormat, QuantizationSpec

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

GIVE_LSE = (AttentionImpl.NPU, AttentionImpl.REFERENCE, AttentionImpl.SDPA)
"""Forms of attention that give the log-sum-exp of scores too; `auto` takes one of them round a ring."""


def ring_problems(ring: int, attention: AttentionImpl) -> Iterator[Problem]:
    """What of a runtime can't go round a ring of so many ranks; paths are those in a spec."""
    if ring > 1 and attention not in (AttentionImpl.AUTO, *GIVE_LSE):
        why = "gives no log-sum-exp here, by which a ring merges blocks of keys"
        yield Problem(
            "runtime.attention", f"is {attention.value}, which {why}; auto, npu, reference and sdpa do"
        )


def determinism_problems(
    wanted: bool, attention: AttentionImpl, compiled: CompileSpec, path: str = "compile"
) -> Iterator[Problem]:
    """What of a runtime has no deterministic form; paths are those in a spec, `path` that of the compiler."""
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
        yield Problem(f"{path}.mode", message)


_FP8 = QuantFormat.FP8
_QUANT_FORMATS = (_FP8, QuantFormat.INT8)
"""Formats that weights are stored in, and with `dynamic` inputs too."""


def quantization_refusals(quantization: QuantizationSpec | None) -> Iterator[Problem]:
    """What can't be carried out, or not here; paths begin at the spec."""
    if quantization is None:
        return
    if quantization.format not in _QUANT_FORMATS:
        known = " or ".join(form.value for form in _QUANT_FORMATS)
        yield Problem(
            "quantization.format", f"is {quantization.format.value}, which is not there yet; {known} is"
        )
    elif quantization.group_size is not None and (quantization.dynamic or quantization.format is _FP8):
        why = "quantization.dynamic" if quantization.dynamic else "fp8"
        message = f"is {quantization.group_size}, but {why} has one scale for each row; leave it None"
        yield Problem("quantization.group_size", f"{message}, or take int8 weights alone")
    elif find_spec("torchao") is None:
        yield Problem("quantization", "needs torchao: pip install 'mm-models[torchao]'")
