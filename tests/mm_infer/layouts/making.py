"""What one rank of a test makes of an order, with a mistake planted where one is asked for."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torch.distributed.tensor.debug import _clear_sharding_prop_cache

from mm_config.options.run_options import RunOptions
from mm_config.specs import GenerationRequest, InferSpec
from mm_infer.layout import laid_out
from mm_infer.loading import loaded
from tests.mm_infer.layouts.mistakes import MISTAKES


@attrs.frozen
class Order:
    """What ranks are to make."""

    spec: InferSpec
    """The generation."""
    requests: list[GenerationRequest]
    """Its videos."""
    options: RunOptions
    """Where weights lie."""
    mistake: str | None = None
    """What is wrong on purpose."""
    in_parts: bool = False
    """Whether it is denoised by one call and decoded by another."""


def made(order: Order) -> dict[str, Any]:
    """The videos `[B, T, H, W, 3]` in float32, and the latents after the last step of each batch that this
    rank made."""
    last: list[Tensor] = []

    def keep(step: int, _: float, expert: object, latents: Tensor) -> None:
        if step == order.spec.sampler.steps - 1:
            last.append(latents.clone())

    with pytest.MonkeyPatch.context() as patch:
        if order.mistake is not None:
            MISTAKES[order.mistake][1](patch)
        with laid_out(order.spec) as layout:
            pipeline = loaded(order.spec, order.options, None, layout)
            if order.in_parts:
                decoded = pipeline.decode(pipeline.denoise(order.requests, on_step=keep))
                videos = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1)
            else:
                made_at_once = pipeline(order.requests, output="float", on_step=keep)
                videos = torch.stack([video.frames for video in made_at_once])
    parameters = [one for network in pipeline.networks.values() for one in network.parameters()]
    held = sum(getattr(one, "to_local", lambda one=one: one)().numel() for one in parameters)
    whole = sum(one.numel() for one in parameters)
    del pipeline, parameters, layout
    _clear_sharding_prop_cache()
    gc.collect()
    return {
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "videos": videos.numpy(),
        "latents": [one.numpy() for one in last],
        "share": held / whole,
    }
