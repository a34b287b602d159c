"""Clips and captions encoded a file of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import attrs
import torch
from torch import Tensor

from mm_config.options import Locations
from mm_config.specs import TrainSpec
from mm_data import (
    Bad,
    BadClip,
    Clip,
    Dataset,
    Record,
    Shape,
    ask,
    captions_of,
    file_state,
    load_clip,
    to_model_range,
)
from mm_models import build_autoencoder, build_text_encoder
from mm_train.batches import latent_shape


@attrs.frozen
class Encoding:
    """What features are made of, and with what; encoders are built when they are first needed."""

    spec: TrainSpec
    """Its data, autoencoder and text encoder."""
    dataset: Dataset
    """The clips."""
    locations: Locations
    """Where the encoders' weights lie."""
    device: torch.device
    """Where they compute."""

    @property
    def captions(self) -> list[str]:
        """The empty caption, then each caption once, in the order of the dataset."""
        data, records = self.spec.data, self.dataset.records
        return list(dict.fromkeys(["", *(text for record in records for text in captions_of(record, data))]))

    def clip_encoder(self) -> Callable[[range], tuple[Tensor, list[Bad]]]:
        """A function of places in the dataset: `[N, C, T, H, W]` latents, zero where a clip can't be read."""
        autoencoder = build_autoencoder(self.spec.autoencoder, self.device, self.locations)

        def encode(places: range) -> tuple[Tensor, list[Bad]]:
            records = [self.dataset.records[place] for place in places]
            with ThreadPoolExecutor(self.spec.data.workers) as pool:
                loaded = list(pool.map(self._load, records))
            latents = torch.zeros(len(places), *latent_shape(self.spec, self._shape))
            good = [row for row, one in enumerate(loaded) if isinstance(one, Clip)]
            if good:
                frames = torch.stack([one.frames for one in loaded if isinstance(one, Clip)])
                with torch.no_grad():
                    encoded = autoencoder.encode(to_model_range(frames.to(self.device)))
                latents[good] = encoded.float().cpu()
            rows = zip(places, records, loaded, strict=True)
            return latents, [
                Bad(place, str(record.path), one.stage, one.reason, file_state(record.path))
                for place, record, one in rows
                if isinstance(one, BadClip)
            ]

        return encode

    def caption_encoder(self) -> Callable[[range], Tensor]:
        """A function of places in `captions`: `[N, L, D]` text features."""
        text_encoder = build_text_encoder(self.spec.text_encoder, self.device, self.locations)
        captions = self.captions

        def encode(places: range) -> Tensor:
            with torch.no_grad():
                return text_encoder.encode([captions[place] for place in places]).float().cpu()

        return encode

    @property
    def _shape(self) -> Shape:
        data = self.spec.data
        return Shape(data.num_frames, data.height, data.width)

    def _load(self, record: Record) -> Clip | BadClip:
        try:
            return load_clip(ask(record, self.spec.data), self.spec.data)
        except BadClip as problem:
            return problem
