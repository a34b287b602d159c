"""Rules on attention that Ascend's fused kernels don't take, so that no card has to refuse it.

Limits: op-plugin's documentation of `npu_fusion_attention`, which takes the layout BSND and every format of a
spec, and torch_npu's choice between that kernel and products that hold each pair of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mm_config.schema.errors import Problem, SpecError, prefixed
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.parallel import AttentionImpl
from mm_config.specs.train import TrainSpec

MOST_HEADS, WIDEST_HEAD, MOST_TOKENS = 256, 768, 1_000_000
SDPA_WIDEST_HEAD, SDPA_FLOAT32_STEP = 512, 4


def check_kernels(spec: TrainSpec | InferSpec, device: str) -> None:
    """Raises SpecError with all problems that a spec has on the device that its `auto` turned out to be."""
    if problems := [*prefixed(kernel_problems(spec, device), "spec")]:
        raise SpecError(problems)


def kernel_problems(spec: TrainSpec | InferSpec, device: str) -> Iterator[Problem]:
    """What no kernel of the device takes; paths start inside the spec.

    Args:
        spec: The spec.
        device: The kind that it is carried out on.
    """
    attention = spec.runtime.attention
    if device != "npu" or attention is AttentionImpl.REFERENCE:
        return
    training = isinstance(spec, TrainSpec)
    parallel = spec.parallel if training else spec.runtime.parallel
    where = "parallel" if training else "runtime.parallel"
    # Attention to the caption has all heads of the rank, also where ranks share tokens.
    heads, of_rank = spec.model.num_attention_heads, spec.model.num_attention_heads // parallel.tensor
    if of_rank > MOST_HEADS:
        yield Problem(
            "model.num_attention_heads",
            f"is {heads}, {of_rank} of them on a rank, but attention on an NPU takes at most {MOST_HEADS}; "
            f"a tensor of {-(-heads // MOST_HEADS)} or more in {where} splits them",
        )
    yield from _width_problems(spec)
    yield from _token_problems(spec, parallel.ring, where)


def _width_problems(spec: TrainSpec | InferSpec) -> Iterator[Problem]:
    width = getattr(spec.model, "attention_head_dim", 1)
    by_torch = spec.runtime.attention is AttentionImpl.SDPA
    dtype = spec.precision.compute if isinstance(spec, TrainSpec) else spec.dtype
    widest = SDPA_WIDEST_HEAD if by_torch else WIDEST_HEAD
    if width > widest:
        yield Problem(
            "model.num_attention_heads",
            f"makes heads of {width} values, but attention {'sdpa ' if by_torch else ''}on an NPU takes at "
            f"most {widest}; more and narrower heads",
        )
    elif by_torch and dtype is Dtype.FLOAT32 and width % SDPA_FLOAT32_STEP:
        yield Problem(
            "runtime.attention",
            f"is sdpa, which on an NPU takes no float32 heads of {width} values, only multiples of "
            f"{SDPA_FLOAT32_STEP}; choose auto or npu",
        )


def _token_problems(spec: TrainSpec | InferSpec, ring: int, where: str) -> Iterator[Problem]:
    for path, clip in _clips(spec):
        tokens = spec.model.tokens(spec.autoencoder.latent_shape(clip.num_frames, clip.height, clip.width))
        if -(-tokens // ring) > MOST_TOKENS:
            yield Problem(
                path,
                f"makes sequences of {tokens} tokens, but attention on an NPU takes at most {MOST_TOKENS}; "
                f"fewer frames, or a ring of {-(-tokens // MOST_TOKENS)} or more in {where}",
            )


def _clips(spec: TrainSpec | InferSpec) -> Iterator[tuple[str, Any]]:
    """Whatever has frames, height and width, by the path of its frames."""
    if isinstance(spec, InferSpec):
        yield "num_frames", spec
    elif not spec.data.buckets:
        yield "data.num_frames", spec.data
    else:
        yield from ((f"data.buckets.{place}.num_frames", one) for place, one in enumerate(spec.data.buckets))
