"""Wan's diffusion transformer; parameter names equal diffusers' `WanTransformer3DModel`.

Shapes: B batch, C latent channels, T H W latent frames, height, width; S tokens, L text tokens,
I image tokens, K image features, D model width.
"""

import math
from collections.abc import Collection, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mm_config.specs import WanTransformerSpec
from mm_models.ops.choosing import Ops
from mm_models.ops.layers import InputLinear
from mm_models.ops.rope import Rope, axis_table, grid_table
from mm_models.ops.widening import widened
from mm_models.wan.block import Block
from mm_models.wan.conditioning import ConditionEmbedder
from mm_models.wan.inputs import token_grid


class RotaryTables(nn.Module):
    """Cosines and sines of every axis position; a token's row joins its three axes'."""

    cos: Tensor
    sin: Tensor

    def __init__(self, spec: WanTransformerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.init_buffers(torch.get_default_device())

    def init_buffers(self, device: torch.device | str) -> None:
        """Computes the tables on a device; they are not saved with the weights."""
        cos, sin = axis_table(self.spec.attention_head_dim, self.spec.rope_max_seq_len, device)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._of_grid: dict[tuple[tuple[int, int, int], torch.device], Rope] = {}

    def forward(self, grid: tuple[int, int, int]) -> Rope:
        """Tables of a token grid (frames, height, width); kept, since a run has few shapes."""
        key = grid, self.cos.device
        if key not in self._of_grid:
            # A table first made while sampling must still serve a backward pass later.
            with torch.inference_mode(False):
                self._of_grid[key] = grid_table((self.cos, self.sin), grid)
        return self._of_grid[key]


class PatchEmbedding(nn.Conv3d):
    """A convolution whose stride is its kernel, computed as one matrix product over patches."""

    def forward(self, input: Tensor) -> Tensor:
        """`[B, C, T, H, W]` -> `[B, S, D]` in the weight's dtype."""
        patches = patchify(input.to(self.weight.dtype), self.kernel_size)
        return F.linear(patches, self.weight.flatten(1), self.bias)


class WanTransformer(nn.Module):
    """Predicts the velocity of noised video latents from their timestep, caption and given images.

    Inputs are float32 and are cast inside, where the parameters are of a narrower dtype: under FSDP2 take
    `MixedPrecisionPolicy(cast_forward_inputs=False)`, which keeps timesteps and modulation exact.
    """

    float32_residual = False
    """Whether the residual stream and the output layer are float32 where the layers are narrower."""
    by_token: ClassVar[Mapping[str, int]] = {"modulation.rows_BS": 1, "rope": 0}
    """Arguments of a block that go by token beside its stream, with their axis of tokens."""
    not_by_token: ClassVar[Collection[str]] = tuple(
        f"attn2.{name}" for name in ("to_k", "to_v", "add_k_proj", "add_v_proj")
    )
    """Linear layers of a block that see the caption or the image."""

    def __init__(self, spec: WanTransformerSpec, ops: Ops) -> None:
        super().__init__()
        dim, patch = spec.hidden_size, spec.patch_size
        self.spec, self.ops = spec, ops
        self.rope = RotaryTables(spec)
        self.patch_embedding = PatchEmbedding(spec.in_channels, dim, kernel_size=patch, stride=patch)
        self.condition_embedder = ConditionEmbedder(spec)
        self.blocks = nn.ModuleList([Block(spec, ops) for _ in range(spec.num_layers)])
        self.proj_out = InputLinear(dim, spec.out_channels * math.prod(patch))
        self.scale_shift_table = nn.Parameter(torch.empty(1, 2, dim))

    def forward(
        self, latents_BCTHW: Tensor, timestep: Tensor, text_BLT: Tensor, image_BIK: Tensor | None = None
    ) -> Tensor:
        """The velocity: the latents' dtype and shape, with `out_channels`.

        Args:
            latents_BCTHW: Noised latents, each size a multiple of the patch's; `in_channels` channels, those
                of image conditions included.
            timestep: `[B]`, or one timestep for each latent frame of tokens, `[B, T]`, or for each token,
                `[B, S]`.
            text_BLT: The text encoder's features, zero beyond each caption's length.
            image_BIK: The image encoder's features, where the network has an image branch; several images'
                tokens follow each other.

        Raises:
            UserError: A shape that doesn't fit the network, a size that patches do not divide or that is
                beyond the rotary table, or image features missing or of no use.
        """
        grid = token_grid(self.spec, latents_BCTHW, timestep, text_BLT, image_BIK)
        rope = self.rope(grid)
        modulation, text_BLD, image_BID = self.condition_embedder(
            timestep, text_BLT, image_BIK, math.prod(grid)
        )
        x_BSD = self.patch_embedding(latents_BCTHW)
        if self.float32_residual:
            x_BSD = widened(x_BSD)
        for block in self.blocks:
            x_BSD = block(x_BSD, text_BLD, modulation, rope, image_BID)
        shift, scale = modulation.of_output(self.scale_shift_table)
        x_BSD = self.proj_out(self.ops.modulate(x_BSD, shift, scale, self.spec.eps, modulation.rows_BS))
        return unpatchify(x_BSD, grid, self.spec.patch_size).type_as(latents_BCTHW)

    def init_buffers(self, device: torch.device | str) -> None:
        """Computes the buffers that are not saved, on a device; needed after `to_empty`."""
        self.rope.init_buffers(device)

    def draw(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """A parameter's first value, whole, float32 on the CPU, by the rules of Wan's authors.

        Xavier-uniform weights (the image branch's too) and zero biases; normal(0, 0.02) in the time and text
        embedders; zeros in the output layer, so that the first prediction is zero, and in the table of image
        positions; modulation tables normal with variance 1 / D.
        """
        owner, _, kind = name.rpartition(".")
        if kind == "scale_shift_table":
            return torch.randn(shape, generator=generator) / math.sqrt(shape[-1])
        if kind in ("bias", "pos_embed") or owner == "proj_out":
            return torch.zeros(shape)
        if "norm" in owner:
            return torch.ones(shape)
        if owner.startswith(("condition_embedder.time_embedder", "condition_embedder.text_embedder")):
            return 0.02 * torch.randn(shape, generator=generator)
        bound = math.sqrt(6 / (shape[0] + math.prod(shape[1:])))
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def patchify(latents_BCTHW: Tensor, patch: tuple[int, ...]) -> Tensor:
    """`[B, C, T, H, W]` -> `[B, S, C * prod(patch)]`, channels outermost as in a convolution's weight."""
    p, q, r = patch
    return rearrange(latents_BCTHW, "b c (t p) (h q) (w r) -> b (t h w) (c p q r)", p=p, q=q, r=r)


def unpatchify(x_BSK: Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> Tensor:
    """`[B, S, prod(patch) * C]`, channels innermost -> `[B, C, T, H, W]`."""
    t, h, w = grid
    p, q, r = patch
    pattern = "b (t h w) (p q r c) -> b c (t p) (h q) (w r)"
    return rearrange(x_BSK, pattern, t=t, h=h, w=w, p=p, q=q, r=r)
