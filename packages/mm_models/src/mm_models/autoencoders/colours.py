"""Colours of latents without decoding: one linear map for all cells, fitted to what the autoencoder decodes.

No published table is taken, since that belongs to one set of weights: the map is the least squares of a few
soft clips that are encoded and decoded once, so that it fits any autoencoder of any number of channels.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from mm_config.specs import AutoencoderSpec
from mm_models.autoencoders.slices import decoded_slices
from mm_models.seeding import generator

CLIPS, CELLS = 8, 8
"""How many clips, and the cells of each along height and width."""


@attrs.frozen(eq=False)
class Colours:
    """A linear map from the channels of a cell to its mean colour."""

    weight_3C: Tensor
    """float32 on the CPU."""
    bias_3: Tensor
    """float32 on the CPU."""
    error: float
    """Root mean square over the clips of the fit, of colours about from -1 to 1."""

    def of(self, latents_BCTHW: Tensor) -> Tensor:
        """The colours `[B, 3, T, H, W]` of latents, about [-1, 1], float32 on the CPU."""
        latents = latents_BCTHW.detach().float().cpu()
        return torch.einsum("kc,bcthw->bkthw", self.weight_3C, latents) + self.bias_3.view(3, 1, 1, 1)


_FITTED: WeakKeyDictionary[Any, Colours] = WeakKeyDictionary()


@torch.no_grad()
def colours_of(autoencoder: Any, spec: AutoencoderSpec) -> Colours:
    """The map of an autoencoder, which is fitted once.

    Args:
        autoencoder: On its device; of ranks that share one, all call this.
        spec: Its strides.
    """
    if (found := _FITTED.get(autoencoder)) is not None:
        return found
    cells, colours = [], []
    for clip in soft_clips(spec.temporal_stride, spec.spatial_stride).split(1):
        latents = autoencoder.encode(clip)
        video = torch.cat([*decoded_slices(autoencoder, latents)], dim=2)
        cells.append(latents.cpu().movedim(1, -1).flatten(0, -2))
        colours.append(
            cell_means(video, spec.temporal_stride, spec.spatial_stride).movedim(1, -1).flatten(0, -2)
        )
    known, wanted = torch.cat(cells).double(), torch.cat(colours).double()
    known = torch.cat((known, known.new_ones(len(known), 1)), dim=1)
    # The driver that takes channels which never move, or move together.
    solution = torch.linalg.lstsq(known, wanted, driver="gelsd").solution
    error = float((known @ solution - wanted).square().mean().sqrt())
    _FITTED[autoencoder] = Colours(solution[:-1].T.float().contiguous(), solution[-1].float(), error)
    return _FITTED[autoencoder]


def soft_clips(temporal_stride: int, spatial_stride: int, key: str = "colours of latents") -> Tensor:
    """`[N, 3, 1 + temporal_stride, H, W]` in [-1, 1]: a colour each, soft spots that move, and grain, without
    which channels of fine detail would hold nothing but rounding."""
    draws, size = generator(key), CELLS * spatial_stride
    coarse = torch.rand(CLIPS, 3, 2, 3, 3, generator=draws) * 2 - 1
    colour = torch.rand(CLIPS, 3, 1, 1, 1, generator=draws) * 2 - 1
    frames = (1 + temporal_stride, size, size)
    soft = F.interpolate(coarse, size=frames, mode="trilinear", align_corners=True)
    grain = torch.rand(CLIPS, 3, *frames, generator=draws) * 2 - 1
    return 0.4 * soft + 0.4 * colour + 0.2 * grain


def cell_means(video_BCTHW: Tensor, temporal_stride: int, spatial_stride: int) -> Tensor:
    """The mean of each cell's pixels, `[B, 3, T, H, W]`; the first frame has cells of its own."""
    side = (spatial_stride, spatial_stride)
    first = F.avg_pool3d(video_BCTHW[:, :, :1], (1, *side))
    return torch.cat((first, F.avg_pool3d(video_BCTHW[:, :, 1:], (temporal_stride, *side))), dim=2)
