"""From what the stream carries to what the network is given: encoded on the fly, or looked up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from mm_config.options import Locations
from mm_config.specs import TrainSpec
from mm_data import Asked, Bad, Clip, load_clip, to_model_range
from mm_models import build_autoencoder, build_text_encoder
from mm_train.features.kinds import LATENTS, TEXT
from mm_train.features.looking_up import Features

Collate = Callable[[Sequence[Any], Sequence[bool]], tuple[Tensor, Tensor]]


@attrs.frozen
class Source:
    """How samples are loaded and put together."""

    load: Callable[[Asked], Any] | None
    """What the stream calls for each sample; None decodes the clip."""
    workers: int | None
    """Threads that load; None takes the spec's."""
    collate: Collate
    """Makes `latents_BCTHW` and `text_BLD`, float32 on the device, of loaded samples; the second argument
    says whose caption is dropped."""
    bad: tuple[Bad, ...] = ()
    """Clips that are known to be unreadable."""


@attrs.frozen
class _Encoded:
    """A clip whose latents are looked up by the stream, whose errors end all ranks."""

    latents: Tensor
    """`[C, T, H, W]`."""
    caption: str
    """What it shows."""


def source_of(
    spec: TrainSpec, locations: Locations, device: torch.device, features: Features | None = None
) -> Source:
    """Decodes and encodes clips and captions whenever they are drawn, or looks up what is kept of them.

    Args:
        spec: The training.
        locations: Where the weights of encoders lie; of those alone that are needed.
        device: Where batches go.
        features: What is kept; None where all is encoded.
    """
    kinds = frozenset() if features is None else features.kinds
    encode_clips = None if LATENTS in kinds else _clip_encoder(spec, locations, device)
    encode_text = None if TEXT in kinds else build_text_encoder(spec.text_encoder, device, locations)

    def load(asked: Asked) -> Any:
        if features is None:
            return load_clip(asked, spec.data)
        kept = features.kept(asked)
        if LATENTS not in kinds:
            return attrs.evolve(load_clip(asked, spec.data), caption=features.caption_of(kept))
        return _Encoded(features.latents_of(kept), features.caption_of(kept))

    def collate(samples: Sequence[Any], dropped: Sequence[bool]) -> tuple[Tensor, Tensor]:
        captions = ["" if drop else one.caption for one, drop in zip(samples, dropped, strict=True)]
        with torch.no_grad():
            if encode_clips is None:
                latents = torch.stack([one.latents for one in samples]).to(device)
            else:
                latents = encode_clips(samples)
            if encode_text is None:
                assert features is not None
                return latents, torch.stack([features.text_of(one) for one in captions]).to(device)
            return latents, encode_text.encode(captions).float()

    # A look-up is cheaper than handing it to a thread.
    workers = 0 if LATENTS in kinds else None
    return Source(load if kinds else None, workers, collate, features.bad if features else ())


def _clip_encoder(
    spec: TrainSpec, locations: Locations, device: torch.device
) -> Callable[[Sequence[Clip]], Tensor]:
    autoencoder = build_autoencoder(spec.autoencoder, device, locations)

    def encode(clips: Sequence[Clip]) -> Tensor:
        frames = torch.stack([clip.frames for clip in clips]).to(device)
        return autoencoder.encode(to_model_range(frames)).float()

    return encode
