"""What the networks are given of requests beside noise: features of texts, and what images come to.

Shapes: B videos, L text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mm_config.specs import GenerationRequest, InferSpec
from mm_infer.images import frames_of
from mm_infer.requests import Inputs, negative_prompt
from mm_models import NOTHING, Autoencoder, Given, ImageEncoder, TextEncoder, given_frames


def text_features(spec: InferSpec, encoder: TextEncoder, batch: Inputs) -> tuple[Tensor, Tensor]:
    """Features `[B, L, D]` of the prompts and of the negative ones, "" where nothing is to be avoided."""
    prompts = [request.prompt for request in batch.requests] if batch.text is None else []
    negatives = [negative_prompt(spec, one) for one in batch.requests if batch.negative is None]
    texts = sorted({*prompts, *negatives})
    encoded = dict(zip(texts, encoder.encode(texts), strict=True)) if texts else {}
    text, negative = batch.text, batch.negative
    if text is None:
        text = torch.stack([encoded[one] for one in prompts])
    if negative is None:
        negative = torch.stack([encoded[one] for one in negatives])
    return text, negative


def given_of(
    spec: InferSpec,
    autoencoder: Autoencoder,
    image_encoder: ImageEncoder | None,
    requests: Sequence[GenerationRequest],
    device: torch.device,
) -> Given:
    """What the networks are given of the images of requests, each of which has them, or none of which has.

    Args:
        spec: The generation.
        autoencoder, image_encoder: Make latents and features of frames.
        requests: Of videos of one size.
        device: Where the frames are encoded.

    Raises:
        UserError: An image can't be read.
    """
    frames = [frames_of(spec, request) for request in requests]
    if not frames[0]:
        return NOTHING
    columns = [torch.stack(column).to(device) for column in zip(*frames, strict=True)]
    stride = spec.autoencoder.temporal_stride
    return given_frames(spec.model, stride, autoencoder, image_encoder, columns, spec.num_frames)
