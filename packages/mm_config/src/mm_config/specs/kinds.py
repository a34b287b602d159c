"""The kinds of specs that a field can ask for: a field typed by a kind accepts any spec of it."""

from __future__ import annotations

import enum
import math
from abc import abstractmethod
from typing import Any


class Conditioning(enum.Enum):
    """What a network sees beside noise, timestep and caption."""

    TEXT = "text"
    """Nothing more (T2V)."""
    FIRST_FRAME = "first_frame"
    """A mask and the latents of the first frame, as further input channels (I2V)."""
    FIRST_AND_LAST_FRAME = "first_and_last_frame"
    """A mask and the latents of the first and the last frame, as further input channels (FLF2V)."""
    CLEAN_FIRST_FRAME = "clean_first_frame"
    """The first latent frame itself may be given clean, with timestep 0 for its tokens (TI2V)."""


ATTENTION_CORES = ("self_attention_core", "cross_attention_core")
"""Parts of a network's FLOPs that attention kernels compute; all others are matrix products."""


class Split(enum.Enum):
    """What ranks that share a module by tensor parallelism each have of it."""

    INSIDE = "inside"
    """Takes whole tensors and gives one; each of its parameters is of a layer that is split as follows."""
    OUTPUTS = "outputs"
    """Rows of the weight: each has a part of the outputs, such as some of the heads."""
    INPUTS = "inputs"
    """Columns of the weight: each takes its part of the inputs, and the outputs are summed."""
    NORM = "norm"
    """Values of an RMS norm's weight: each has a part of what is normed together."""


class ModelSpec:
    """A denoising network's architecture; answers what plans and patterns need without torch."""

    __slots__ = ()

    in_channels: int
    out_channels: int
    patch_size: tuple[int, int, int]
    text_dim: int
    num_layers: int
    num_attention_heads: int = 1
    conditioning: Conditioning = Conditioning.TEXT
    # Any, because a class with such a field types it as int, which a type checker would refuse here.
    ffn_dim: Any = None
    """Width, an int, that tensor parallelism divides beside the heads; None where there is none."""
    rope_max_seq_len: Any = None
    """Longest axis, an int, of a table of positions in tokens; None where there is no table."""
    image_dim: int | None = None
    """Width of the image encoder's features; None where there is no image branch."""
    image_positions: int | None = None
    """Image tokens that have learned positions; None for any number."""

    @abstractmethod
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter by its name in the built network, in the network's order."""
        raise NotImplementedError

    @abstractmethod
    def tokens(self, latent_shape: tuple[int, int, int]) -> int:
        """Tokens of one sample whose latents are `(frames, height, width)`."""
        raise NotImplementedError

    def token_grid(self, latent_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Patches of the latents along frames, height and width, the last axis innermost."""
        frames, height, width = (
            size // patch for size, patch in zip(latent_shape, self.patch_size, strict=True)
        )
        return frames, height, width

    @abstractmethod
    def forward_flops(
        self, latent_shape: tuple[int, int, int], text_tokens: int, image_tokens: int = 0
    ) -> int:
        """Floating-point operations (2 per multiply-add) of one sample's forward pass.

        Args:
            latent_shape: `(frames, height, width)`.
            text_tokens: Tokens of the caption, padding included.
            image_tokens: Tokens of the image encoder, where the network has an image branch.
        """
        raise NotImplementedError

    def flops_by_part(
        self, latent_shape: tuple[int, int, int], text_tokens: int, image_tokens: int = 0
    ) -> dict[str, int]:
        """What `forward_flops` is the sum of; `ATTENTION_CORES` name the parts of attention's kernels."""
        return {"network": self.forward_flops(latent_shape, text_tokens, image_tokens)}

    def flops_outside_blocks(
        self, latent_shape: tuple[int, int, int], text_tokens: int, image_tokens: int = 0
    ) -> int:
        """What a pass costs that skips the blocks: all of it, where a network doesn't know."""
        return self.forward_flops(latent_shape, text_tokens, image_tokens)

    @abstractmethod
    def block_activation_values(self, latent_shape: tuple[int, int, int]) -> int:
        """Values that one block keeps for the backward pass of one sample, without recomputation."""
        raise NotImplementedError

    def block_gradient_values(self, latent_shape: tuple[int, int, int]) -> int:
        """Values that a block at work holds at most beside those that it keeps, for one sample."""
        return self.block_input_values(latent_shape)

    def block_input_values(self, latent_shape: tuple[int, int, int]) -> int:
        """Values that go into one block for one sample: all that full recomputation keeps of it."""
        return self.block_activation_values(latent_shape)

    def inference_values(self, latent_shape: tuple[int, int, int], text_tokens: int) -> int:
        """Values that a forward pass of one sample holds at most where no gradients are taken, in the format
        of the computation; `float32_residual` widens two residual streams among them."""
        return self.block_activation_values(latent_shape) + self.block_gradient_values(latent_shape)

    def position_values(self, latent_shape: tuple[int, int, int]) -> int:
        """Values in float32 that tell the tokens' places, for samples of one size together."""
        return 0

    def widened_values(self) -> int:
        """Values of the largest weight that is copied to float32, outside of blocks, where it is narrower."""
        return 0

    def stays_float32(self, parameter: str) -> bool:
        """Whether a parameter is kept in float32 where the network computes in a narrower format."""
        return False

    def tensor_plan(self) -> dict[str, Split]:
        """What tensor parallelism splits, by patterns over names of modules; empty where it can't."""
        return {}

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


class ImageEncoderSpec:
    """An image encoder: a frame to `[image_tokens, image_dim]` features."""

    __slots__ = ()

    image_dim: int

    @property
    @abstractmethod
    def image_tokens(self) -> int:
        """Tokens of one image."""
        raise NotImplementedError


class OptimizerSpec:
    """An optimizer with a peak learning rate `lr` and gradient clipping."""

    __slots__ = ()

    lr: float
    max_grad_norm: float


class DatasetSpec:
    """Where clips and captions come from."""

    __slots__ = ()


class ScorerSpec:
    """How generated videos are measured."""

    __slots__ = ()


class StageSpec:
    """What is done with decoded frames before they are written."""

    __slots__ = ()

    def size_after(self, num_frames: int, height: int, width: int, fps: int) -> tuple[int, int, int, int]:
        """Frames, height, width and frame rate of what comes out."""
        raise NotImplementedError


class Weights:
    """Where a network's weights come from."""

    __slots__ = ()
