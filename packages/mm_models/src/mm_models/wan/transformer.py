"""Wan's diffusion transformer; parameter names equal diffusers' `WanTransformer3DModel`.

Shapes: B batch, C latent channels, T H W latent frames, height, width; S tokens, L text tokens,
D model width, N heads, P pairs of a head that rotate together.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mm_config.errors import Problem, UserError
from mm_config.specs.wan import WanTransformerSpec
from mm_models.ops.attention import attention
from mm_models.ops.layers import Float32LayerNorm, Float32RMSNorm
from mm_models.ops.modulation import gated_add, modulate
from mm_models.ops.rope import grid_table, rope_angles, rotate
from mm_models.wan.conditioning import ConditionEmbedder, Modulation

Rope = tuple[Tensor, Tensor]
"""Cosine and sine of each token's angles, `[S, 1, P]` each."""


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
        angles = rope_angles(self.spec.attention_head_dim, self.spec.rope_max_seq_len, device)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self._of_grid: dict[tuple[tuple[int, int, int], torch.device], Rope] = {}

    def forward(self, grid: tuple[int, int, int]) -> Rope:
        """Tables of a token grid (frames, height, width); kept, since a run has few shapes."""
        key = grid, self.cos.device
        if key not in self._of_grid:
            head_dim = self.spec.attention_head_dim
            # A table first made while sampling must still serve a backward pass later.
            with torch.inference_mode(False):
                table = grid_table(self.cos, grid, head_dim), grid_table(self.sin, grid, head_dim)
            self._of_grid[key] = table
        return self._of_grid[key]


class PatchEmbedding(nn.Conv3d):
    """A convolution whose stride is its kernel, computed as one matrix product over patches."""

    def forward(self, input: Tensor) -> Tensor:
        """`[B, C, T, H, W]` -> `[B, S, D]` in the weight's dtype."""
        patches = patchify(input.to(self.weight.dtype), self.kernel_size)
        return F.linear(patches, self.weight.flatten(1), self.bias)


class Attention(nn.Module):
    """Multi-head attention; queries and keys are RMS-normalised over all heads together."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q = Float32RMSNorm(dim, eps)
        self.norm_k = Float32RMSNorm(dim, eps)

    def forward(self, x_BSD: Tensor, context_BLD: Tensor, rope: Rope | None = None) -> Tensor:
        """Attends from x to the context; with rope, queries and keys are rotated."""
        query = self.norm_q(self.to_q(x_BSD)).unflatten(-1, (self.heads, -1))
        key = self.norm_k(self.to_k(context_BLD)).unflatten(-1, (self.heads, -1))
        value = self.to_v(context_BLD).unflatten(-1, (self.heads, -1))
        if rope is not None:
            query, key = rotate(query, *rope), rotate(key, *rope)
        return self.to_out[0](attention(query, key, value))


class GeluProjection(nn.Module):
    """A linear layer and the tanh form of GELU."""

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, ffn_dim)

    def forward(self, x_BSD: Tensor) -> Tensor:
        """`[B, S, D]` -> `[B, S, ffn_dim]`."""
        return F.gelu(self.proj(x_BSD), approximate="tanh")


class FeedForward(nn.Module):
    """Two linear layers with GELU between; `net` has an empty place so that names equal diffusers'."""

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GeluProjection(dim, ffn_dim), nn.Identity(), nn.Linear(ffn_dim, dim)])

    def forward(self, x_BSD: Tensor) -> Tensor:
        """`[B, S, D]` -> `[B, S, D]`."""
        return self.net[2](self.net[0](x_BSD))


class Block(nn.Module):
    """Self-attention, cross-attention to the caption, feed-forward; the first and last are modulated."""

    def __init__(self, spec: WanTransformerSpec) -> None:
        super().__init__()
        dim, self.eps = spec.hidden_size, spec.eps
        self.attn1 = Attention(dim, spec.num_attention_heads, spec.eps)
        self.attn2 = Attention(dim, spec.num_attention_heads, spec.eps)
        self.norm2 = Float32LayerNorm(dim, spec.eps) if spec.cross_attn_norm else nn.Identity()
        self.ffn = FeedForward(dim, spec.ffn_dim)
        self.scale_shift_table = nn.Parameter(torch.empty(1, 6, dim))

    def forward(self, x_BSD: Tensor, text_BLD: Tensor, modulation: Modulation, rope: Rope) -> Tensor:
        """One residual step of the stream."""
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = modulation.split(
            self.scale_shift_table, modulation.blocks_U6D
        )
        normed = modulate(x_BSD, shift, scale, self.eps)
        x_BSD = gated_add(x_BSD, self.attn1(normed, normed, rope), gate)
        x_BSD = x_BSD + self.attn2(self.norm2(x_BSD), text_BLD)
        return gated_add(x_BSD, self.ffn(modulate(x_BSD, ffn_shift, ffn_scale, self.eps)), ffn_gate)


class WanTransformer(nn.Module):
    """Predicts the velocity of noised video latents from their timestep and caption.

    Inputs are float32 and are cast inside, where the parameters are of a narrower dtype: under FSDP2 take
    `MixedPrecisionPolicy(cast_forward_inputs=False)`, which keeps timesteps and modulation exact.
    """

    def __init__(self, spec: WanTransformerSpec) -> None:
        super().__init__()
        dim, patch = spec.hidden_size, spec.patch_size
        self.spec = spec
        self.rope = RotaryTables(spec)
        self.patch_embedding = PatchEmbedding(spec.in_channels, dim, kernel_size=patch, stride=patch)
        self.condition_embedder = ConditionEmbedder(spec.freq_dim, spec.text_dim, dim)
        self.blocks = nn.ModuleList([Block(spec) for _ in range(spec.num_layers)])
        self.proj_out = nn.Linear(dim, spec.out_channels * math.prod(patch))
        self.scale_shift_table = nn.Parameter(torch.empty(1, 2, dim))

    def forward(self, latents_BCTHW: Tensor, timestep: Tensor, text_BLT: Tensor) -> Tensor:
        """The velocity: the latents' dtype and shape, with `out_channels`.

        Args:
            latents_BCTHW: Noised latents, each size a multiple of the patch's; `in_channels` channels.
            timestep: `[B]`, or `[B, S]` with one timestep per token.
            text_BLT: The text encoder's features, zero beyond each caption's length.

        Raises:
            UserError: A size that patches do not divide, or that is beyond the rotary table.
        """
        grid = token_grid(self.spec, latents_BCTHW.shape[2:])
        rope = self.rope(grid)
        modulation, text_BLD = self.condition_embedder(timestep, text_BLT)
        x_BSD = self.patch_embedding(latents_BCTHW)
        for block in self.blocks:
            x_BSD = block(x_BSD, text_BLD, modulation, rope)
        shift, scale = modulation.split(self.scale_shift_table, modulation.time_UD.unsqueeze(1))
        x_BSD = self.proj_out(modulate(x_BSD, shift, scale, self.spec.eps))
        return unpatchify(x_BSD, grid, self.spec.patch_size).type_as(latents_BCTHW)

    def init_buffers(self, device: torch.device | str) -> None:
        """Computes the buffers that are not saved, on a device; needed after `to_empty`."""
        self.rope.init_buffers(device)

    def draw(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """A parameter's first value, whole, float32 on the CPU, by the rules of Wan's authors.

        Xavier-uniform weights and zero biases; normal(0, 0.02) in the time and text embedders; zeros in
        the output layer, so that the first prediction is zero; tables normal with variance 1 / D.
        """
        owner, _, kind = name.rpartition(".")
        if kind == "scale_shift_table":
            return torch.randn(shape, generator=generator) / math.sqrt(shape[-1])
        if kind == "bias" or owner == "proj_out":
            return torch.zeros(shape)
        if "norm" in owner:
            return torch.ones(shape)
        if owner.startswith(("condition_embedder.time_embedder", "condition_embedder.text_embedder")):
            return 0.02 * torch.randn(shape, generator=generator)
        bound = math.sqrt(6 / (shape[0] + math.prod(shape[1:])))
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def token_grid(spec: WanTransformerSpec, latent_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Tokens along frames, height and width of latents of `(frames, height, width)`.

    Raises:
        UserError: A size that patches do not divide, or that is beyond the rotary table.
    """
    problems = []
    for axis, size, patch in zip(("frames", "height", "width"), latent_shape, spec.patch_size, strict=True):
        if size % patch:
            problems.append(
                Problem("", f"latents' {axis} must be a multiple of the patch's {patch}, got {size}")
            )
        elif size // patch > spec.rope_max_seq_len:
            longest = spec.rope_max_seq_len
            problems.append(
                Problem("", f"latents' {axis} has {size // patch} tokens, the rotary table {longest}")
            )
    if problems:
        raise UserError(problems)
    frames, height, width = (size // patch for size, patch in zip(latent_shape, spec.patch_size, strict=True))
    return frames, height, width


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
