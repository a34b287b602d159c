"""Rules on number formats, and on devices, attention and compilers that don't go together."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.rules.wording import one_of
from mm_config.schema.errors import Problem
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.parallel import AttentionImpl, CompileBackend, CompileMode, CompileSpec
from mm_config.specs.serving import ApproximateAttention, InferRuntimeSpec
from mm_config.specs.train import PrecisionSpec, TrainRuntimeSpec, TrainSpec

DEVICES = ("auto", "cpu", "cuda", "npu")
DEVICE_OF = {
    AttentionImpl.CUDNN: "cuda",
    AttentionImpl.FLASH_2: "cuda",
    AttentionImpl.FLASH_3: "cuda",
    AttentionImpl.NPU: "npu",
}
"""The device that an implementation of attention is written for."""
SIXTEEN_BITS = frozenset(DEVICE_OF) - {AttentionImpl.NPU}
"""Implementations that take no float32."""
NOT_EXACT = {
    AttentionImpl.SAGE: ApproximateAttention.SAGE,
    AttentionImpl.FLASH_4: ApproximateAttention.FLASH_4,
}
"""Names under which specs once had what is `approximate_attention` now, since it changes the result."""


def precision_problems(precision: PrecisionSpec) -> Iterator[Problem]:
    """Gradients are summed in no narrower format than they are computed in; float16 would need scaling."""
    compute, reduce, output = precision.compute, precision.reduce, precision.output
    for name, dtype in (("compute", compute), ("reduce", reduce), ("output", output)):
        if dtype is Dtype.FLOAT16:
            yield Problem(
                name, "is float16, whose gradients vanish without loss scaling; choose bfloat16 or float32"
            )
    if compute is Dtype.FLOAT32 and reduce is Dtype.BFLOAT16:
        yield Problem("reduce", "is bfloat16, narrower than compute float32; choose float32")
    if compute is Dtype.FLOAT32 and output is Dtype.BFLOAT16:
        yield Problem("output", "is bfloat16, narrower than compute float32; choose None or float32")


def runtime_problems(runtime: TrainRuntimeSpec | InferRuntimeSpec) -> Iterator[Problem]:
    """The device is known, and the implementation of attention is one of its own."""
    device, attention = runtime.device, runtime.attention
    if device not in DEVICES:
        yield Problem("device", one_of(device, DEVICES, {"gpu": "cuda", "ascend": "npu"}))
        return
    wanted = DEVICE_OF.get(attention, device)
    if device not in ("auto", wanted):
        yield Problem(
            "attention",
            f"is {attention.value}, which is for {wanted}, but device is {device}; choose auto, "
            "reference or sdpa",
        )


def attention_problems(spec: TrainSpec | InferSpec, path: str) -> Iterator[Problem]:
    """Fast kernels take 16-bit values; what is not exact is no runtime's, and for generation alone."""
    attention = spec.runtime.attention
    training = isinstance(spec, TrainSpec)
    dtype = spec.precision.compute if training else spec.dtype
    if attention in SIXTEEN_BITS and dtype is Dtype.FLOAT32:
        where = f"{path}.precision.compute" if training else f"{path}.dtype"
        yield Problem(
            "runtime.attention",
            f"is {attention.value}, which takes 16-bit values, but {where} is float32; choose auto, "
            "reference or sdpa, or bfloat16 there",
        )
    if attention in NOT_EXACT:
        instead = "one of the exact ones" if training else f"{path}.approximate_attention={attention.value}"
        yield Problem(
            "runtime.attention",
            f"is {attention.value}, which is not exact; choose auto, {'or' if training else 'and'} {instead}",
        )


def approximation_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    """Attention that is not exact takes the place of the runtime's, where there are kernels for it."""
    approximate, runtime = spec.approximate_attention, spec.runtime
    if approximate is None:
        return
    if runtime.attention is not AttentionImpl.AUTO and runtime.attention not in NOT_EXACT:
        yield Problem(
            "runtime.attention",
            f"is {runtime.attention.value}, but {path}.approximate_attention is {approximate.value}, which "
            "takes its place; choose auto",
        )
    if runtime.device == "npu":
        yield Problem(
            "approximate_attention",
            f"is {approximate.value}, which is for cuda and, in a plain form, cpu, but {path}.runtime.device "
            "is npu; choose None",
        )


def compile_problems(spec: CompileSpec) -> Iterator[Problem]:
    """Presets are those of one compiler."""
    if spec.mode is not CompileMode.DEFAULT and spec.backend is not CompileBackend.INDUCTOR:
        yield Problem(
            "mode",
            f"is {spec.mode.value}, a preset of inductor, but backend is {spec.backend.value}; choose "
            "default, or inductor",
        )
