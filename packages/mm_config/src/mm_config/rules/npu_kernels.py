"""Rules on attention that Ascend's fused kernels don't take, so that no card has to refuse it.

Limits: op-plugin's documentation of `npu_fusion_attention`, which takes the layout BSND and every format of a
spec, and torch_npu's choice between that kernel and products that hold each pair of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

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
    """What no kernel of a kind of device takes; paths start inside the spec."""
    attention = spec.runtime.attention
    if device != "npu" or attention is AttentionImpl.REFERENCE:
        return
    if isinstance(spec, TrainSpec):
        parallel, where, dtype = spec.parallel, "parallel", spec.precision.compute
        buckets = {f"data.buckets.{place}.num_frames": one for place, one in enumerate(spec.data.buckets)}
        clips = buckets or {"data.num_frames": spec.data}
    else:
        parallel, where, dtype = spec.runtime.parallel, "runtime.parallel", spec.dtype
        clips = {"num_frames": spec}
    # Attention to the caption has all heads of the rank, also where ranks share tokens.
    heads, of_rank = spec.model.num_attention_heads, spec.model.num_attention_heads // parallel.tensor
    if of_rank > MOST_HEADS:
        split = f"a tensor of {-(-heads // MOST_HEADS)} or more in {where} splits them"
        limit = f"attention on an NPU takes at most {MOST_HEADS}"
        yield Problem("model.num_attention_heads", f"is {heads}, {of_rank} on a rank, but {limit}; {split}")
    width = getattr(spec.model, "attention_head_dim", 1)
    by_torch = attention is AttentionImpl.SDPA
    if width > (widest := SDPA_WIDEST_HEAD if by_torch else WIDEST_HEAD):
        limit = f"attention {'sdpa ' if by_torch else ''}on an NPU takes at most {widest}"
        message = f"makes heads of {width} values, but {limit}; more and narrower heads"
        yield Problem("model.num_attention_heads", message)
    elif by_torch and dtype is Dtype.FLOAT32 and width % SDPA_FLOAT32_STEP:
        taken = f"float32 heads of {width} values, only multiples of {SDPA_FLOAT32_STEP}"
        yield Problem("runtime.attention", f"is sdpa, which on an NPU takes no {taken}; choose auto or npu")
    for path, clip in clips.items():
        shape = spec.autoencoder.latent_shape(clip.num_frames, clip.height, clip.width)
        if -(-(tokens := spec.model.tokens(shape)) // parallel.ring) > MOST_TOKENS:
            limit = f"attention on an NPU takes at most {MOST_TOKENS}"
            ring = f"a ring of {-(-tokens // MOST_TOKENS)} or more in {where}"
            yield Problem(path, f"makes sequences of {tokens} tokens, but {limit}; fewer frames, or {ring}")
