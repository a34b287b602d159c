"""From clips and captions to the rows of features that are kept of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from mm_config.options import Locations
from mm_config.specs import DataSpec, TrainSpec
from mm_data import Asked, BadClip, Clip, load_clip, to_model_range
from mm_models import (
    build_autoencoder,
    build_image_encoder,
    build_text_encoder,
    condition_latents,
    image_features,
    kept_of,
    own_frames,
)
from mm_train.features.kinds import CONDITION, IMAGE, LATENTS, TEXT

Row = dict[str, Tensor]

_BUILDERS: dict[str, Any] = {
    LATENTS: build_autoencoder,
    TEXT: build_text_encoder,
    IMAGE: build_image_encoder,
}


class Encoders:
    """The encoders of a training; each is built when it is first needed."""

    def __init__(self, spec: TrainSpec, locations: Locations, device: torch.device) -> None:
        self.spec = spec
        self.device = device
        self._locations = locations
        self._built: dict[str, Any] = {}

    def of_clip(self, clip: Clip, kinds: Iterable[str]) -> dict[str, Row]:
        """The rows of a clip by kind, on the CPU; a clip's features don't depend on what else is made."""
        found: dict[str, Row] = {}
        with torch.no_grad():
            video_13THW = to_model_range(clip.frames[None].to(self.device))
            if LATENTS in kinds:
                (found[LATENTS],) = kept_of(self._encoder(LATENTS), video_13THW)
            given, frames = own_frames(self.spec.model, video_13THW), video_13THW.shape[2]
            if CONDITION in kinds:
                condition = condition_latents(self.spec.model, self._encoder(LATENTS), given, frames)
                assert condition is not None, "a network of text alone has no such kind"
                found[CONDITION] = {"latents": narrowed(condition[0])}
            if IMAGE in kinds:
                found[IMAGE] = {"features": narrowed(image_features(self._encoder(IMAGE), given).float()[0])}
        return {kind: {name: _own(part) for name, part in row.items()} for kind, row in found.items()}

    def of_captions(self, captions: Sequence[str]) -> list[Row]:
        """The rows of captions: `features` `[tokens, D]`, without the zeros beyond a caption's length."""
        with torch.no_grad():
            features_BLD = self._encoder(TEXT).encode(list(captions)).float()
        return [{"features": _own(narrowed(unpadded(one_LD)))} for one_LD in features_BLD]

    def forget(self) -> None:
        """Gives back the memory of what was built; it is built again where it is needed again."""
        self._built.clear()

    def _encoder(self, kind: str) -> Any:
        if kind not in self._built:
            encoders = {
                LATENTS: self.spec.autoencoder,
                TEXT: self.spec.text_encoder,
                IMAGE: self.spec.image_encoder,
            }
            self._built[kind] = _BUILDERS[kind](encoders[kind], self.device, self._locations)
        return self._built[kind]


def loaded(asks: Iterable[Asked], data: DataSpec) -> Iterator[tuple[Asked, Clip | BadClip]]:
    """Clips in the order that they are asked for; `data.workers` of them are decoded ahead, no more."""

    def load(asked: Asked) -> Clip | BadClip:
        try:
            return load_clip(asked, data)
        except BadClip as problem:
            return problem

    waiting: deque[tuple[Asked, Future[Clip | BadClip]]] = deque()
    with ThreadPoolExecutor(data.workers) as pool:
        for asked in asks:
            waiting.append((asked, pool.submit(load, asked)))
            if len(waiting) > data.workers:
                first, clip = waiting.popleft()
                yield first, clip.result()
        while waiting:
            first, clip = waiting.popleft()
            yield first, clip.result()


def unpadded(features_LD: Tensor) -> Tensor:
    """Without the rows at the end that are zero."""
    (lengths,) = features_LD.any(1).nonzero(as_tuple=True)
    return features_LD[: int(lengths[-1]) + 1 if len(lengths) else 0]


def padded(features_LD: Tensor, length: int) -> Tensor:
    """Float32, with zeros up to a length."""
    whole = torch.zeros(length, features_LD.shape[1])
    whole[: len(features_LD)] = features_LD
    return whole


def narrowed(values: Tensor) -> Tensor:
    """The same values in bfloat16 where that holds each of them, as it does what was computed in it."""
    narrow = values.bfloat16()
    return narrow if torch.equal(narrow.float(), values) else values


def _own(part: Tensor) -> Tensor:
    """On the CPU, in memory of its own."""
    return part.detach().cpu().contiguous().clone()
