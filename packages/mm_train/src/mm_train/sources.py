"""From what the stream carries to what the network is given: encoded on the fly, or looked up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from mm_config.options import Locations
from mm_config.specs import TrainSpec
from mm_data import Asked, Bad, Clip, caption_of, load_clip, to_model_range
from mm_models import (
    NOTHING,
    Given,
    build_autoencoder,
    build_image_encoder,
    build_text_encoder,
    given_frames,
    given_latents,
    own_frames,
)
from mm_models import device as devices
from mm_train.features.kinds import LATENTS, TEXT
from mm_train.features.looking_up import Features
from mm_train.moving import Mover
from mm_train.offloading import networks_of
from mm_train.sharding import shard_encoder


@attrs.frozen(eq=False)
class Samples:
    """A micro-batch as the loss takes it, float32 on the device."""

    latents_BCTHW: Tensor
    """Clean latents."""
    text_BLD: Tensor
    """Features of the captions."""
    given: Given = NOTHING
    """What else the network is given."""


@attrs.frozen(eq=False)
class Encoded:
    """A place of a micro-batch that is encoded already."""

    samples: Samples
    """Those of the whole micro-batch."""


Collate = Callable[[Sequence[Any], Sequence[bool]], Samples]


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
    """Puts loaded samples together; the second argument says whose caption is dropped."""
    bad: tuple[Bad, ...] = ()
    """Clips that are known to be unreadable."""
    begin: Callable[[Sequence[Any]], None] = _nothing
    """Is told of samples that `collate` gets next, so that they can be moved meanwhile."""
    encoders: tuple[Any, ...] = ()
    """What is built of encoders; none of those whose features are looked up."""

    def samples(self, items: Sequence[Any], dropped: Sequence[bool]) -> Samples:
        """Those of a micro-batch, encoded now or before."""
        return items[0].samples if isinstance(items[0], Encoded) else self.collate(items, dropped)


@attrs.frozen
class _Encoded:
    """A clip whose latents are looked up by the stream, whose errors end all ranks."""

    latents: Tensor
    """`[C, T, H, W]`."""
    condition: Tensor | None
    """Latents of what is given of it."""
    image: Tensor | None
    """The image encoder's features of what is given of it."""
    num_frames: int
    """Of the clip itself."""
    caption: str
    """What it shows."""


def source_of(
    spec: TrainSpec,
    locations: Locations,
    device: torch.device,
    features: Features | None = None,
    ranks: DeviceMesh | None = None,
) -> Source:
    """Decodes and encodes clips and captions whenever they are drawn, or looks up what is kept of them.

    Args:
        spec: The training.
        locations: Where the weights of encoders lie; of those alone that are needed.
        device: Where batches go.
        features: What is kept; None where all is encoded.
        ranks: Those that share the weights of encoders; None where each has them whole.
    """

    def shared(encoder: Any) -> Any:
        if ranks is not None:
            for network in networks_of(encoder):
                shard_encoder(network, ranks, device, spec.runtime.offload_encoders)
        return encoder

    texts = _texts(spec, locations, device, features, shared)
    if features is not None and LATENTS in features.kinds:
        return _kept_source(spec, device, features, texts)
    return _encoding_source(spec, locations, device, texts, shared)


@attrs.frozen
class _Texts:
    """What makes `text_BLD` of captions."""

    encode: Callable[[list[str]], Tensor]
    """Float32, on the device."""
    encoders: tuple[Any, ...] = ()
    """What it is built of."""


def _texts(
    spec: TrainSpec,
    locations: Locations,
    device: torch.device,
    features: Features | None,
    shared: Callable[[Any], Any],
) -> _Texts:
    if features is not None and TEXT in features.kinds:
        text_of = features.text_of
        return _Texts(lambda captions: devices.moved(torch.stack([text_of(one) for one in captions]), device))
    encoder = shared(build_text_encoder(spec.text_encoder, device, locations))
    return _Texts(lambda captions: encoder.encode(captions).float(), (encoder,))


def _encoding_source(
    spec: TrainSpec,
    locations: Locations,
    device: torch.device,
    texts: _Texts,
    shared: Callable[[Any], Any],
) -> Source:
    autoencoder = build_autoencoder(spec.autoencoder, device, locations)
    image = spec.image_encoder
    image_encoder = None if image is None else shared(build_image_encoder(image, device, locations))
    stride = spec.autoencoder.temporal_stride
    mover = Mover(device, devices.side_stream(device) if spec.data.pin_memory else None)

    def load(asked: Asked) -> Clip:
        clip = load_clip(asked, spec.data)
        return attrs.evolve(clip, frames=devices.pinned(clip.frames, device))

    def collate(clips: Sequence[Any], dropped: Sequence[bool]) -> Samples:
        frames = mover.take([clip.frames for clip in clips])
        with torch.no_grad():
            video = to_model_range(frames)
            own = own_frames(spec.model, video)
            given = given_frames(spec.model, stride, autoencoder, image_encoder, own, video.shape[2])
            return Samples(autoencoder.encode(video).float(), texts.encode(_captions(clips, dropped)), given)

    def begin(clips: Sequence[Any]) -> None:
        mover.begin([clip.frames for clip in clips if not isinstance(clip, Encoded)])

    pinned = load if spec.data.pin_memory else None
    images = () if image_encoder is None else (image_encoder,)
    encoders = (autoencoder, *images, *texts.encoders)
    return Source(pinned, workers=None, collate=collate, begin=begin, encoders=encoders)


def _kept_source(spec: TrainSpec, device: torch.device, features: Features, texts: _Texts) -> Source:
    stride = spec.autoencoder.temporal_stride

    def load(asked: Asked) -> _Encoded:
        kept = features.kept(asked)
        latents, given = features.latents_of(kept), features.given_of(kept)
        caption = caption_of(asked.record, spec.data, asked.draw)
        return _Encoded(latents, *given, asked.shape.num_frames, caption)

    def collate(samples: Sequence[Any], dropped: Sequence[bool]) -> Samples:
        latents, condition, image = (
            _stacked([getattr(sample, name) for sample in samples], device)
            for name in ("latents", "condition", "image")
        )
        assert latents is not None, "each kept clip has latents"
        given = given_latents(spec.model, stride, condition, image, samples[0].num_frames)
        with torch.no_grad():
            return Samples(latents, texts.encode(_captions(samples, dropped)), given)

    # A look-up is cheaper than handing it to a thread.
    return Source(load=load, workers=0, collate=collate, bad=features.bad, encoders=texts.encoders)


def _stacked(parts: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    there = [one for one in parts if one is not None]
    return devices.moved(torch.stack(there), device) if there else None


def _captions(samples: Sequence[Any], dropped: Sequence[bool]) -> list[str]:
    return ["" if drop else one.caption for one, drop in zip(samples, dropped, strict=True)]
