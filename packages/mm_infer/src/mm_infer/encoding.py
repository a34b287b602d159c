"""Requests as the networks take them, and the latents that the networks make of them.

Shapes: B videos, C latent channels, T, H, W latent frames, height and width, L text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from mm_config import rules
from mm_config.schema import UserError
from mm_config.specs import GenerationRequest, GuidanceMode, InferSpec
from mm_infer.denoise import OnEstimate, OnStep, denoise
from mm_infer.images import frames_of, video_size
from mm_infer.passes import Forward
from mm_infer.requests import Inputs, negative_prompt, noise_of
from mm_infer.samplers import sigmas
from mm_infer.videos import first_frames
from mm_models import (
    NOTHING,
    Autoencoder,
    Given,
    ImageEncoder,
    TextEncoder,
    given_frames,
    mode_latents,
    torch_dtype,
)


@attrs.frozen(eq=False)
class Encoded:
    """Requests of one batch, as the networks take them."""

    requests: tuple[GenerationRequest, ...]
    """What is asked for, of each of B videos."""
    noise: Tensor
    """`[B, C, T, H, W]` float32: what the first step begins with, which is a given video with noise where the
    requests have one."""
    text: Tensor
    """Features `[B, L, D]` of the prompts."""
    negative: Tensor
    """Features `[B, L, D]` of the negative prompts."""
    given: Given
    """What given images come to."""

    def to(self, place: torch.device) -> Encoded:
        """The same on a device."""
        given = {field.name: getattr(self.given, field.name) for field in attrs.fields(Given)}
        moved = Given(**{name: None if one is None else one.to(place) for name, one in given.items()})
        return Encoded(
            self.requests, self.noise.to(place), self.text.to(place), self.negative.to(place), moved
        )


def encoded(
    spec: InferSpec,
    text_encoder: TextEncoder,
    autoencoder: Autoencoder,
    image_encoder: ImageEncoder | None,
    batch: Inputs,
    device: torch.device,
) -> Encoded:
    """A batch of requests as the networks take it, on a device.

    Args:
        spec: The generation.
        text_encoder, autoencoder, image_encoder: On the device.
        batch: Of videos of one size, all with given images or none.
        device: Where everything is computed.

    Raises:
        UserError: A given file can't be read, or a text is too long.
    """
    text, negative = text_features(spec, text_encoder, batch)
    noise = batch.noise
    if noise is None:
        noise = torch.stack([noise_of(spec, request) for request in batch.requests])
    if batch.requests[0].video is not None:
        noise = noised_videos(spec, autoencoder, batch.requests, noise, device)
    given = given_of(spec, autoencoder, image_encoder, batch.requests, device)
    return Encoded(batch.requests, noise, text, negative, given).to(device)


def denoised(
    spec: InferSpec,
    forward: Forward,
    batch: Encoded,
    on_step: OnStep | None,
    on_estimate: OnEstimate | None = None,
) -> Tensor:
    """The clean latents `[B, C, T, H, W]` of one batch, in float32 on its device.

    Args:
        spec: The generation, as the requests don't alter it.
        forward: Makes the passes of the experts.
        batch: Of one size, sampler and first step.
        on_step: Called after each step.

    Raises:
        UserError: They are not finite; such latents would decode to videos that look merely black.
    """
    made = rules.spec_of(spec, batch.requests[0])
    latents = denoise(
        batch.noise,
        batch.text,
        batch.negative,
        forward,
        made.sampler,
        spec.boundary,
        dtype=torch.float32 if spec.float32_residual else torch_dtype(spec.dtype),
        batched=spec.runtime.guidance is not GuidanceMode.SEQUENTIAL,
        on_step=on_step,
        on_estimate=on_estimate,
        given=batch.given,
        first_step=rules.first_step(made, batch.requests[0]),
    )
    if not bool(latents.isfinite().all()):
        raise UserError("the latents are not finite in the end; look at the weights, guidance and dtype")
    return latents


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


@torch.no_grad()
def noised_videos(
    spec: InferSpec,
    autoencoder: Autoencoder,
    requests: Sequence[GenerationRequest],
    noise: Tensor,
    device: torch.device,
) -> Tensor:
    """Given videos with the noise that their first step begins at, on the CPU: (1 - sigma) x0 + sigma noise.

    As diffusers' `WanVideoToVideoPipeline` does, x0 is the mode of the autoencoder's posterior, never a
    sample, and sigma the noise level of the first of the steps that the strength leaves.

    Args:
        spec: The generation, as the requests don't alter it.
        autoencoder: Makes latents of frames, one video after the other.
        requests: Of one size, sampler and first step, each with a video.
        noise: `[B, C, T, H, W]` on the CPU.
        device: Where the frames are encoded.

    Raises:
        UserError: A video can't be read.
    """
    made = rules.spec_of(spec, requests[0])
    level = float(sigmas(made.sampler)[rules.first_step(made, requests[0])])
    size = video_size(spec, requests[0])
    clean = [
        mode_latents(autoencoder, first_frames(one.video, made.num_frames, *size)[None].to(device))[0].cpu()
        for one in requests
        if one.video is not None
    ]
    return (1 - level) * torch.stack(clean) + level * noise.cpu()


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
    num_frames = rules.spec_of(spec, requests[0]).num_frames
    return given_frames(spec.model, stride, autoencoder, image_encoder, columns, num_frames)
