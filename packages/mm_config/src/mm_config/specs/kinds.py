"""The kinds of specs that a field can ask for: a field typed by a kind accepts any spec of it."""

from __future__ import annotations

import math
from abc import abstractmethod


class RootSpec:
    """A spec that can be run, hashed and stored on its own (TrainSpec, InferSpec)."""

    __slots__ = ()

    name: str


class ModelSpec:
    """A denoising network's architecture; answers what plans and patterns need without torch."""

    __slots__ = ()

    in_channels: int
    out_channels: int
    patch_size: tuple[int, int, int]
    text_dim: int
    num_layers: int

    @abstractmethod
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter by its name in the built network, in the network's order."""
        raise NotImplementedError

    @abstractmethod
    def tokens(self, latent_shape: tuple[int, int, int]) -> int:
        """Tokens of one sample whose latents are `(frames, height, width)`."""
        raise NotImplementedError

    @abstractmethod
    def forward_flops(self, latent_shape: tuple[int, int, int], text_tokens: int) -> int:
        """Floating-point operations (2 per multiply-add) of one sample's forward pass."""
        raise NotImplementedError

    @abstractmethod
    def block_activation_values(self, latent_shape: tuple[int, int, int]) -> int:
        """Values that one block keeps for the backward pass of one sample, without recomputation."""
        raise NotImplementedError

    def parameter_count(self) -> int:
        """The number of parameters."""
        return sum(math.prod(shape) for shape in self.parameter_shapes().values())


class AutoencoderSpec:
    """A video autoencoder: pixels to normalised latents and back."""

    __slots__ = ()

    latent_channels: int
    temporal_stride: int
    spatial_stride: int

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """`(frames, height, width)` of the latents; the first frame has a latent frame of its own."""
        return (
            (num_frames - 1) // self.temporal_stride + 1,
            height // self.spatial_stride,
            width // self.spatial_stride,
        )


class TextEncoderSpec:
    """A text encoder: a caption to `[max_tokens, text_dim]` features, zero beyond its length."""

    __slots__ = ()

    max_tokens: int
    text_dim: int


class DatasetSpec:
    """Where clips and captions come from."""

    __slots__ = ()


class ScorerSpec:
    """How generated videos are measured."""

    __slots__ = ()


class Weights:
    """Where a network's weights come from."""

    __slots__ = ()
