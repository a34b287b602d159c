"""An autoencoder without weights: the lowest frequencies of an orthonormal DCT of colour, time and space.

The first frame has a latent frame of its own: it counts as a block of equal frames, which decoding averages.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mm_config.options import Locations
from mm_config.schema import Problem, UserError
from mm_config.specs import DctAutoencoderSpec

COLOUR_AXES = torch.tensor(
    [
        [1 / math.sqrt(3), 1 / math.sqrt(3), 1 / math.sqrt(3)],
        [1 / math.sqrt(2), 0.0, -1 / math.sqrt(2)],
        [-1 / math.sqrt(6), 2 / math.sqrt(6), -1 / math.sqrt(6)],
    ],
    dtype=torch.float64,
)
"""Orthonormal rows over (R, G, B): luma, red against blue, green against magenta."""

_MEAN = (-18.5745, 0.0063, -0.0061, 0.0002, 0.3986, 0.1561, 0.0163, 0.0004, 0.009, 0.0, -0.0018, -0.0002)
_STD = (5.9876, 1.8084, 1.7997, 1.019, 3.9803, 2.819, 0.7029, 0.6087, 0.7078, 0.6032, 0.6084, 0.2023)
"""Mean and standard deviation of the first channels on rendered shapes, at strides 4 and 8."""


class DctAutoencoder:
    """Video in [-1, 1] to normalised latents and back; both ways are linear and carry gradients."""

    def __init__(
        self, spec: DctAutoencoderSpec, device: torch.device | str = "cpu", locations: Locations | None = None
    ) -> None:
        """Checks that the normalisation of the spec's channels is known; it has no weights to locate.

        Raises:
            UserError: It is not.
        """
        self.stride = (spec.temporal_stride, spec.spatial_stride, spec.spatial_stride)
        mean, std = _statistics(spec)
        self.mean_C111 = torch.tensor(mean, device=device).view(-1, 1, 1, 1)
        self.std_C111 = torch.tensor(std, device=device).view(-1, 1, 1, 1)
        self.basis = basis(spec.latent_channels, self.stride).to(device)

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """`[B, 3, 1 + kn, H, W]` in [-1, 1] -> `[B, C, 1 + n, H / stride, W / stride]` float32."""
        return (analyse(video_BCTHW.to(self.basis), self.basis) - self.mean_C111) / self.std_C111

    def decode(self, latents_BCTHW: Tensor) -> Tensor:
        """The way back; the video is not clamped."""
        return synthesise(latents_BCTHW.to(self.basis) * self.std_C111 + self.mean_C111, self.basis)

    def decode_slices(self, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        """The same, the frames of a latent frame at a time and in the host's memory."""
        for index, frame in enumerate(latents_BCTHW.split(1, dim=2)):
            coefficients = frame.to(self.basis) * self.std_C111 + self.mean_C111
            video = F.conv_transpose3d(coefficients, self.basis, stride=self.stride)
            yield (video if index else video.mean(dim=2, keepdim=True)).cpu()


def analyse(video_BCTHW: Tensor, basis: Tensor) -> Tensor:
    """Coefficients of each block of `[channels, 3, T, H, W]` basis functions."""
    _, _, frames, height, width = basis.shape
    first = video_BCTHW[:, :, :1].expand(-1, -1, frames, -1, -1)
    blocks = torch.cat((first, video_BCTHW[:, :, 1:]), dim=2)
    return F.conv3d(blocks, basis, stride=(frames, height, width))


def synthesise(coefficients_BCTHW: Tensor, basis: Tensor) -> Tensor:
    """The transpose of the block transform; the frames of the first block are averaged into one."""
    _, _, frames, height, width = basis.shape
    video = F.conv_transpose3d(coefficients_BCTHW, basis, stride=(frames, height, width))
    first = video[:, :, :frames].mean(dim=2, keepdim=True)
    return torch.cat((first, video[:, :, frames:]), dim=2)


def basis(channels: int, block: tuple[int, int, int]) -> Tensor:
    """`[channels, 3, *block]` float32, orthonormal: products of a colour axis and three DCT-II rows."""
    in_time, in_height, in_width = (dct_matrix(size) for size in block)
    rows = [
        torch.einsum("c,t,y,x->ctyx", COLOUR_AXES[colour], in_time[t], in_height[y], in_width[x])
        for colour, t, y, x in frequencies(channels, block)
    ]
    return torch.stack(rows).float()


def frequencies(channels: int, block: tuple[int, int, int]) -> list[tuple[int, int, int, int]]:
    """(colour, frame, row, column) frequency of each channel, by rising sum; luma counts 0, the others 1."""
    frames, height, width = block
    every = [
        (colour, t, y, x)
        for colour in range(3)
        for t in range(frames)
        for y in range(height)
        for x in range(width)
    ]
    return sorted(every, key=lambda f: (min(f[0], 1) + f[1] + f[2] + f[3], f))[:channels]


def dct_matrix(size: int) -> Tensor:
    """`[size, size]` float64 orthonormal DCT-II; row k is frequency k."""
    k = torch.arange(size, dtype=torch.float64)[:, None]
    n = torch.arange(size, dtype=torch.float64)[None, :]
    matrix = math.sqrt(2 / size) * torch.cos(math.pi * (n + 0.5) * k / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def _statistics(spec: DctAutoencoderSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = spec.latent_channels
    if (spec.temporal_stride, spec.spatial_stride) != (4, 8) or channels > len(_MEAN):
        raise UserError(
            Problem(
                "spec.autoencoder",
                "the DCT's normalisation is known for temporal_stride 4, spatial_stride 8 and at most "
                f"{len(_MEAN)} latent_channels; got {spec.temporal_stride}, {spec.spatial_stride} and "
                f"{channels}",
            )
        )
    return _MEAN[:channels], _STD[:channels]
