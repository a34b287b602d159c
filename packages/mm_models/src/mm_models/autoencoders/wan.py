"""Wan's causal 3D autoencoder: diffusers' `AutoencoderKLWan`, with normalised latents."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from mm_config.rules import wan_autoencoder_problems
from mm_config.schema import Problem, UserError, prefixed
from mm_config.specs import LatentMode, RandomWeights, WanAutoencoderSpec
from mm_models.autoencoders.kept import latents_of
from mm_models.autoencoders.ranks import Ranks
from mm_models.autoencoders.wan_names import architecture, published_statistics
from mm_models.autoencoders.wan_slices import decoded_slices, moments
from mm_models.dtypes import torch_dtype
from mm_models.loading import load
from mm_models.released_json import read_release_json
from mm_models.releases import folder_with_config, reading, release_place, require_equal
from mm_models.seeding import generator

if TYPE_CHECKING:
    from mm_config.options import Locations


class WanAutoencoder:
    """Video in [-1, 1] to normalised latents and back; the network's parameters are frozen."""

    def __init__(
        self, spec: WanAutoencoderSpec, device: torch.device | str = "cpu", locations: Locations | None = None
    ) -> None:
        """Builds the network and fills it.

        Raises:
            UserError: The weights can't be found or read, or belong to another architecture, or strides or
                tiles don't fit the stages.
        """
        dtype = torch_dtype(spec.dtype)
        if misfits := list(prefixed(wan_autoencoder_problems(spec), "spec.autoencoder")):
            raise UserError(misfits)
        if isinstance(spec.weights, RandomWeights):
            config = {**architecture(spec), **_unit_statistics(spec.latent_channels)}
            network: Any = AutoencoderKLWan(**config)
            _draw_all(network, spec.weights.seed)
        else:
            place = release_place(spec.weights, locations, "spec.autoencoder.weights")
            with reading(place, "spec.autoencoder.weights"):
                network = _read(spec, place)
        self.spec = spec
        # diffusers' own `to` warns of every cast, also where it has nothing to keep in float32.
        self.network: Any = nn.Module.to(network, device=device, dtype=dtype).requires_grad_(False).eval()
        if spec.tiling:
            # diffusers counts the encoder's tiles in folded pixels, so they are `patch_size` times as large.
            self.network.enable_tiling(*spec.tile_size, *spec.tile_stride)
        self.ranks: Ranks | None = None
        """Those that share the work, see `share_autoencoder`."""
        self.mean_C111 = torch.tensor(network.config.latents_mean, device=device).view(-1, 1, 1, 1)
        self.std_C111 = torch.tensor(network.config.latents_std, device=device).view(-1, 1, 1, 1)

    @property
    def to_compile(self) -> tuple[nn.Module, ...]:
        """The networks of both ways."""
        return self.network.encoder, self.network.decoder

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """`[B, 3, 1 + 4n, H, W]` in [-1, 1] -> `[B, C, 1 + n, H / stride, W / stride]` float32.

        The clips follow one another, and the network goes through each by 4 frames, so that beside the
        latents the device's memory depends on the size of the picture, or of a tile, alone: the input may
        lie elsewhere. Where the spec asks for a sample, its noise is keyed by the clip's pixels: a clip
        always has the same latents, whatever its batch.
        """
        sample = self.spec.latent_mode is LatentMode.SAMPLE
        return torch.stack(
            [latents_of(kept, sample=sample) for kept in self.posteriors(video_BCTHW, sampled=sample)]
        )

    def posteriors(self, video_BCTHW: Tensor, *, sampled: bool = True) -> list[dict[str, Tensor]]:
        """What each clip's latents follow from, see `latents_of`: `mean` `[C, T, H, W]` in the network's
        format, `shift` and `scale` `[C]`; of those that may be sampled also `log_variance` and `pixels`, the
        clip's digest in bytes, for which a device is waited for."""
        return [self._posterior(clip, sampled) for clip in video_BCTHW.split(1)]

    def _posterior(self, clip_1CTHW: Tensor, sampled: bool) -> dict[str, Tensor]:
        posterior = DiagonalGaussianDistribution(moments(self.network, clip_1CTHW, self.ranks))
        found = {
            "mean": posterior.mode()[0],
            "shift": self.mean_C111.flatten(),
            "scale": self.std_C111.flatten(),
        }
        if sampled:
            pixels = torch.tensor(list(_digest_of(clip_1CTHW)), dtype=torch.uint8)
            found |= {"log_variance": posterior.logvar[0], "pixels": pixels}
        return found

    def decode(self, latents_BCTHW: Tensor) -> Tensor:
        """Normalised latents -> video float32 in the host's memory, clamped to [-1, 1] by the network."""
        return torch.cat([torch.cat([*self.decode_slices(one)], dim=2) for one in latents_BCTHW.split(1)])

    def decode_slices(self, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        """The same, the frames of a latent frame at a time: `[B, 3, 1, H, W]`, then `[B, 3, stride, H, W]`.

        Beside the latents the device's memory depends on B and the size of the picture alone, or on that of
        a tile; of tiles, the host holds the pixels.
        """
        latents = (latents_BCTHW.to(self.mean_C111) * self.std_C111 + self.mean_C111).to(self.network.dtype)
        clips = [decoded_slices(self.network, clip, self.ranks) for clip in latents.split(1)]
        for slices in zip(*clips, strict=True):
            yield torch.cat(slices).float()


def _unit_statistics(channels: int) -> dict[str, Any]:
    return {"latents_mean": [0.0] * channels, "latents_std": [1.0] * channels}


def _read(spec: WanAutoencoderSpec, place: Path) -> AutoencoderKLWan:
    """The network of a folder of diffusers', or of a file, beside which there may be no configuration."""
    folder = folder_with_config(place, AutoencoderKLWan.__name__)
    statistics = _stored_statistics(spec, folder) if folder else published_statistics(spec)
    config: dict[str, Any] = {**architecture(spec), **statistics}
    network = AutoencoderKLWan(**config)
    load(network, place)
    return network


def _stored_statistics(spec: WanAutoencoderSpec, folder: Path) -> dict[str, list[float]]:
    """Mean and deviation of the latents from diffusers' configuration, which describes the spec's network."""
    defaults = {one.name: one.default for one in signature(AutoencoderKLWan.__init__).parameters.values()}
    stored = defaults | read_release_json(folder / "config.json")
    stored["decoder_base_dim"] = stored["decoder_base_dim"] or stored["base_dim"]
    require_equal(folder, stored, architecture(spec) | {"attn_scales": []}, "spec.autoencoder")
    for name in ("latents_mean", "latents_std"):
        numbers = stored[name]
        if not isinstance(numbers, list) or not all(map(_is_finite, numbers)):
            raise UserError(Problem("spec.autoencoder.weights", f"{name} in {folder} is no list of numbers"))
        if len(numbers) != spec.latent_channels:
            problem = f"{folder} has {len(numbers)} {name} for {spec.latent_channels} channels"
            raise UserError(Problem("spec.autoencoder.weights", problem))
    return {name: stored[name] for name in ("latents_mean", "latents_std")}


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


@torch.no_grad()
def _draw_all(network: AutoencoderKLWan, seed: int) -> None:
    """Uniform weights of variance 1 / (3 fan-in), zero biases, unit norms; each keyed by (seed, name)."""
    for name, parameter in network.named_parameters():
        kind = name.rpartition(".")[2]
        if kind == "weight":
            bound = 1 / math.sqrt(math.prod(parameter.shape[1:]))
            parameter.uniform_(-bound, bound, generator=generator(seed, name))
        else:
            parameter.fill_(1.0 if kind == "gamma" else 0.0)


def _digest_of(clip_1CTHW: Tensor) -> bytes:
    return hashlib.blake2b(clip_1CTHW[0].detach().float().cpu().contiguous().numpy().tobytes()).digest()
