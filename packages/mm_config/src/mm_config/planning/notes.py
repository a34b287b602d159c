"""What a plan assumes and what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mm_config.planning.encoders import encoder_parameters
from mm_config.specs.data import Cache
from mm_config.specs.encoders import DctAutoencoderSpec, HashedTextEncoderSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.train import TrainSpec

_WITHOUT_WEIGHTS = (DctAutoencoderSpec, HashedTextEncoderSpec)


def notes(spec: TrainSpec | InferSpec) -> tuple[str, ...]:
    """Sentences, those that matter for this spec only."""
    own = _train_notes(spec) if isinstance(spec, TrainSpec) else _infer_notes(spec)
    return (*own, *_encoder_notes(spec))


def _train_notes(spec: TrainSpec) -> Iterator[str]:
    yield "activations: 20 widths and 2 feed-forward widths per token and block, norms fused"
    if spec.parallel.tensor > 1:
        yield "tensor parallelism is counted for weights and traffic, not for activations"
    if spec.recompute.mode is not Recompute.NONE:
        yield "recomputation counts for patterns that match whole blocks"
    if spec.data.buckets:
        yield "counted for the largest bucket"
    if spec.lora is not None:
        yield "low-rank adapters' own operations are not counted"
    if spec.data.precomputed is None and spec.data.cache is Cache.NONE:
        yield "encoding's operations are not counted, and all of a rank's clips are encoded at once"


def _infer_notes(spec: InferSpec) -> Iterator[str]:
    yield "activations: at most what one block keeps for a backward pass"
    yield "encoding's and decoding's operations are not counted"
    if spec.sparse_attention is not None:
        yield "attention is counted as exact; sparse attention leaves out a part of it"
    if spec.feature_cache is not None:
        yield "every step is counted whole; the feature cache skips blocks"
    if any(not lora.merge for lora in spec.loras):
        yield "adapters beside the weights are not counted"


def _encoder_notes(spec: TrainSpec | InferSpec) -> Iterator[str]:
    found: dict[str, Any] = {
        "text encoder": spec.text_encoder,
        "image encoder": spec.image_encoder,
        "autoencoder": spec.autoencoder,
    }
    for name, encoder in found.items():
        known = encoder is None or isinstance(encoder, _WITHOUT_WEIGHTS) or encoder_parameters(encoder)
        if not known:
            yield f"the {name}'s weights are not counted: {type(encoder).__name__} has no parameter_count()"
