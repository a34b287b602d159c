"""Wan's autoencoder in slices of time: it holds features of a few frames at once, of a picture or a tile.

The network is causal: of the frames before, each convolution needs its last two inputs alone, which diffusers
keeps in a list. Tiles go through all frames one after the other, since such a list is larger than the
features of a slice; what waits of them until they are blended are outcomes, in the host's memory.

`network` is diffusers' `AutoencoderKLWan`. Pictures are folded: `patch_size` squared pixels are channels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify
from torch import Tensor

from mm_models.autoencoders.ranks import Ranks, Relay

Step = Callable[[Tensor, Any, bool], Tensor]
"""`(chunk, cache, is_first) -> outcome`: one chunk of frames through a causal network."""
Window = tuple[slice, slice]
"""Rows and columns."""
WHOLE: Window = (slice(None), slice(None))


@attrs.frozen
class Tiling:
    """Tiles of what goes in and of what comes out: height and width of each, and their distance."""

    size: tuple[int, int]
    """Of a tile that goes in."""
    stride: tuple[int, int]
    """Between tiles that go in."""
    out_size: tuple[int, int]
    """Of a tile that comes out."""
    out_stride: tuple[int, int]
    """Between tiles that come out."""

    def is_needed(self, height: int, width: int) -> bool:
        """Whether a picture is larger than a tile."""
        return height > self.size[0] or width > self.size[1]

    def windows(self, height: int, width: int) -> list[list[Window]]:
        """The tiles of a picture, row by row; the last ones are cut by its edge."""
        (rows, columns), (down, right) = self.size, self.stride
        return [
            [
                (slice(top, min(top + rows, height)), slice(left, min(left + columns, width)))
                for left in range(0, width, right)
            ]
            for top in range(0, height, down)
        ]


@torch.no_grad()
def decoded_slices(network: Any, latents_1CTHW: Tensor, ranks: Ranks | None = None) -> Iterator[Tensor]:
    """The pixels `[1, 3, t, H, W]` of each latent frame, in the host's memory and the network's format.

    Equal to the bit with `network.decode`, with and without tiles.

    Args:
        network: Its `use_tiling` says whether large pictures are cut.
        latents_1CTHW: What `network.decode` takes.
        ranks: Those that share the work and call this at once; each gets all pixels.
    """
    patch, factor = network.config.patch_size or 1, network.spatial_compression_ratio
    factor, frames, channels = factor // patch, _temporal_stride(network), network.config.out_channels
    _, _, count, height, width = latents_1CTHW.shape
    tiling = _tiling(network, network.spatial_compression_ratio, patch)
    convolutions = network._cached_conv_counts["decoder"]

    def step(frame: Tensor, cache: Any, is_first: bool) -> Tensor:
        return network.decoder(frame, feat_cache=cache, feat_idx=[0], first_chunk=is_first)

    def shape(window: Window, index: int) -> tuple[int, ...]:
        rows, columns = _extent(window, height, width)
        return 1, channels, frames if index else 1, rows * factor, columns * factor

    if network.use_tiling and tiling.is_needed(height, width):

        def chunk(window: Window, index: int) -> Tensor:
            return network.post_quant_conv(latents_1CTHW[:, :, index : index + 1, *window])

        run = _Run(step, chunk, shape, count, convolutions, network.device, network.dtype)
        slices = _of_tiles(network, run, tiling, (height, width), factor, ranks)
    else:
        ready = network.post_quant_conv(latents_1CTHW).split(1, dim=2)
        run = _Run(
            step, lambda _, index: ready[index], shape, count, convolutions, network.device, network.dtype
        )
        slices = run.outcomes(WHOLE, ranks)
    for folded in slices:
        pixels = unpatchify(folded.cpu(), patch_size=patch)
        yield pixels.clamp_(-1.0, 1.0)


@torch.no_grad()
def moments(network: Any, clip_13THW: Tensor, ranks: Ranks | None = None) -> Tensor:
    """Means, then log-variances, `[1, 2 C, T, H, W]` on the network's device: what `network.encode` computes.

    Args:
        network: Its `use_tiling` says whether large pictures are cut.
        clip_13THW: Pixels in [-1, 1], wherever they lie: a few frames at a time are brought to the network.
        ranks: Those that share the work and call this at once; each gets all latents.
    """
    patch = network.config.patch_size or 1
    factor, frames, channels = (
        network.spatial_compression_ratio // patch,
        _temporal_stride(network),
        network.z_dim,
    )
    _, _, length, height, width = clip_13THW.shape
    count, height, width = 1 + (length - 1) // frames, height // patch, width // patch
    tiling, convolutions = _tiling(network, 1, factor), network._cached_conv_counts["encoder"]

    def chunk(window: Window, index: int) -> Tensor:
        part = (
            clip_13THW[:, :, :1] if not index else clip_13THW[:, :, frames * (index - 1) + 1 :][:, :, :frames]
        )
        return patchify(part.to(network.device, network.dtype), patch_size=patch)[..., *window]

    def step(chunk: Tensor, cache: Any, _: bool) -> Tensor:
        return network.encoder(chunk, feat_cache=cache, feat_idx=[0])

    def shape(window: Window, _: int) -> tuple[int, ...]:
        rows, columns = _extent(window, height, width)
        return 1, 2 * channels, 1, rows // factor, columns // factor

    if network.use_tiling and tiling.is_needed(height, width):

        def finished(part: Tensor, cache: Any, is_first: bool) -> Tensor:
            return network.quant_conv(step(part, cache, is_first))

        run = _Run(finished, chunk, shape, count, convolutions, network.device, network.dtype)
        slices = _of_tiles(network, run, tiling, (height, width), 1 / factor, ranks)
        return torch.cat(list(slices), dim=2).to(network.device)
    run = _Run(step, chunk, shape, count, convolutions, network.device, network.dtype)
    return network.quant_conv(
        torch.cat([one.to(network.device) for one in run.outcomes(WHOLE, ranks)], dim=2)
    )


@attrs.frozen(eq=False)
class _Run:
    """A causal network and its chunks."""

    step: Step
    """One chunk through the network."""
    chunk: Callable[[Window, int], Tensor]
    """What goes in of a window, by the chunk's number."""
    shape: Callable[[Window, int], tuple[int, ...]]
    """What comes out of it."""
    count: int
    """How many chunks there are."""
    convolutions: int
    """Entries of the network's cache."""
    device: torch.device
    """The network's."""
    dtype: torch.dtype
    """The network's."""

    def outcomes(self, window: Window, ranks: Ranks | None) -> Iterator[Tensor]:
        """What comes out of each chunk of a window; ranks take the chunks in turn."""
        if ranks is None:
            cache: list[Any] = [None] * self.convolutions
            for index in range(self.count):
                yield self.step(self.chunk(window, index), cache, index == 0)
            return
        relay = Relay(ranks, self.count, self.device, self.dtype)
        for start in range(0, self.count, ranks.size):
            mine, end = start + ranks.place, min(start + ranks.size, self.count)
            made: list[Tensor] = []
            if mine < end:
                relay.begin(mine)
                made.append(self.step(self.chunk(window, mine), relay, mine == 0))
            shapes = [[self.shape(window, index)] for index in range(start, end)]
            yield from (one for (one,) in ranks.gather(made, shapes, self.dtype))
        relay.end()


def _of_tiles(
    network: Any,
    run: _Run,
    tiling: Tiling,
    size: tuple[int, int],
    factor: float,
    ranks: Ranks | None,
) -> Iterator[Tensor]:
    """The blended outcome of each chunk, in the host's memory; ranks take the tiles in turn."""
    windows = tiling.windows(*size)
    flat = [window for row in windows for window in row]
    shares = [flat] if ranks is None else [flat[place :: ranks.size] for place in range(ranks.size)]
    own = [
        deque(outcome.cpu() for outcome in run.outcomes(window, None))
        for window in shares[ranks.place if ranks else 0]
    ]
    height, width = (round(one * factor) for one in size)
    for index in range(run.count):
        made = [outcomes.popleft() for outcomes in own]
        if ranks is None:
            tiles = made
        else:
            shapes = [[run.shape(window, index) for window in share] for share in shares]
            parts = ranks.gather(made, shapes, run.dtype)
            tiles = [parts[number % ranks.size][number // ranks.size] for number in range(len(flat))]
        columns = len(windows[0])
        rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
        yield _blended(network, rows, tiling)[..., :height, :width]


def _blended(network: Any, rows: list[list[Tensor]], tiling: Tiling) -> Tensor:
    """The picture of overlapping tiles, as in diffusers' `tiled_decode`: each is blended with what has become
    of the one above it, then with that of the one before it."""
    down, right = tiling.out_stride
    overlap = tiling.out_size[0] - down, tiling.out_size[1] - right
    for number, row in enumerate(rows):
        for column, tile in enumerate(row):
            if number:
                network.blend_v(rows[number - 1][column], tile, overlap[0])
            if column:
                network.blend_h(row[column - 1], tile, overlap[1])
    return torch.cat([torch.cat([tile[..., :down, :right] for tile in row], dim=-1) for row in rows], dim=-2)


def _tiling(network: Any, into: int, out: int) -> Tiling:
    """The network's tiles, of its settings over what a cell is of what goes in and of what comes out."""
    size = network.tile_sample_min_height, network.tile_sample_min_width
    stride = network.tile_sample_stride_height, network.tile_sample_stride_width
    divided = [tuple(one // by for one in pair) for by in (into, out) for pair in (size, stride)]
    return Tiling(*divided)  # type: ignore[arg-type]


def _temporal_stride(network: Any) -> int:
    return 2 ** sum(network.config.temperal_downsample)


def _extent(window: Window, height: int, width: int) -> tuple[int, int]:
    return len(range(height)[window[0]]), len(range(width)[window[1]])
