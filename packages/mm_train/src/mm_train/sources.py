"""From what the stream carries to what the network is given: encoded on the fly, or looked up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from mm_config.options import Locations
from mm_config.specs import DataSpec, TrainSpec
from mm_data import Asked, Bad, BadClip, Clip, caption_of, load_clip, to_model_range
from mm_models import build_autoencoder, build_text_encoder
from mm_models import device as devices
from mm_train.features import Features
from mm_train.moving import Mover

Collate = Callable[[Sequence[Any], Sequence[bool]], tuple[Tensor, Tensor]]


def _nothing(_: Sequence[Any]) -> None:
    """Begins nothing."""


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
    begin: Callable[[Sequence[Any]], None] = _nothing
    """Is told of samples that `collate` gets next, so that they can be moved meanwhile."""


def encoding_source(spec: TrainSpec, locations: Locations, device: torch.device) -> Source:
    """Decodes and encodes each clip whenever it is drawn."""
    autoencoder = build_autoencoder(spec.autoencoder, device, locations)
    text_encoder = build_text_encoder(spec.text_encoder, device, locations)
    mover = Mover(device, devices.side_stream(device) if spec.data.pin_memory else None)

    def load(asked: Asked) -> Clip:
        clip = load_clip(asked, spec.data)
        return attrs.evolve(clip, frames=devices.pinned(clip.frames, device))

    def collate(clips: Sequence[Any], dropped: Sequence[bool]) -> tuple[Tensor, Tensor]:
        frames = mover.take([clip.frames for clip in clips])
        captions = ["" if drop else clip.caption for clip, drop in zip(clips, dropped, strict=True)]
        with torch.no_grad():
            latents = autoencoder.encode(to_model_range(frames)).float()
            return latents, text_encoder.encode(captions).float()

    def begin(clips: Sequence[Any]) -> None:
        mover.begin([clip.frames for clip in clips])

    return Source(load if spec.data.pin_memory else None, workers=None, collate=collate, begin=begin)


@attrs.frozen
class _Encoded:
    """What was encoded of a clip; looked up by the stream, whose errors end all ranks."""

    latents: Tensor
    """`[C, T, H, W]`."""
    text: Tensor
    """`[L, D]`, of its caption."""
    no_text: Tensor
    """Of the empty caption."""


def cached_source(features: Features, data: DataSpec, device: torch.device) -> Source:
    """Looks up what was encoded before."""
    bad = {one.index: one for one in features.bad}

    def load(asked: Asked) -> _Encoded:
        if (found := bad.get(asked.index)) is not None:
            raise BadClip(found.stage, found.reason)
        latents = features.latents_of(asked.index)
        caption = caption_of(asked.record, data, asked.draw)
        return _Encoded(latents, features.text_of(caption), features.text_of(""))

    def collate(samples: Sequence[Any], dropped: Sequence[bool]) -> tuple[Tensor, Tensor]:
        latents = torch.stack([sample.latents for sample in samples])
        pairs = zip(samples, dropped, strict=True)
        text = torch.stack([sample.no_text if drop else sample.text for sample, drop in pairs])
        return latents.to(device), text.to(device)

    # A look-up is cheaper than handing it to a thread.
    return Source(load=load, workers=0, collate=collate, bad=features.bad)
