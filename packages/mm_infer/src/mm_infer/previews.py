"""Previews: what a video would be if denoising ended now, in the colours of its latent cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
from torch import Tensor

import mm_data
from mm_config.specs import GenerationRequest, InferSpec
from mm_infer.denoise import OnEstimate
from mm_models import Autoencoder, colours_of

FOLDER = "previews"
"""Of a run folder."""


@attrs.frozen(eq=False)
class Preview:
    """A look at a video that is being denoised."""

    request: GenerationRequest
    """What was asked for."""
    step: int
    """Steps that are done."""
    frames: Tensor = attrs.field(repr=lambda frames: f"{list(frames.shape)} {frames.dtype}")
    """uint8 RGB `[T, H, W, 3]` on the CPU: a frame for each latent frame, a pixel for each cell."""


OnPreview = Callable[[Preview], object]
"""Called with each preview of each video."""


def previewing(
    spec: InferSpec,
    autoencoder: Autoencoder,
    requests: Sequence[GenerationRequest],
    on_preview: OnPreview | None,
) -> OnEstimate | None:
    """What makes previews of a batch's estimates, every `spec.runtime.preview_every` steps or, where the spec
    says none, in each; None where nobody asks for them.

    Args:
        spec: The generation.
        autoencoder: Its colours are fitted here, before anything is denoised.
        requests: Of the batch.
        on_preview: Called with each video's previews.
    """
    if on_preview is None:
        return None
    colours, every = colours_of(autoencoder, spec.autoencoder), spec.runtime.preview_every or 1

    def estimated(step: int, latents: Tensor) -> None:
        if (step + 1) % every == 0:
            frames = mm_data.to_frames(colours.of(latents))
            for request, one in zip(requests, frames, strict=True):
                on_preview(Preview(request, step + 1, one))

    return estimated


def preview_path(run_dir: Path, video: str, step: int) -> Path:
    """Where a run keeps a preview, by the name of its video's file: `previews/NAME-step-0004.png`."""
    return run_dir / FOLDER / f"{Path(video).stem}-step-{step:04}.png"
