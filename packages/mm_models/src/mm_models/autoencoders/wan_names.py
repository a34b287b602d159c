"""How the weights of Wan's autoencoders are published: diffusers' names and the original code's.

The original ones are those of `wan/modules/vae.py` (`Wan2.1_VAE.pth`) and of `vae2_2.py` (`Wan2.2_VAE.pth`):
four stages with two residual blocks each, and one more in the decoder. Wan2.1's number the parts of all
stages on, Wan2.2's have a module for each stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mm_config.families import wan21, wan22
from mm_config.schema import Problem, UserError
from mm_config.specs import RandomWeights, WanAutoencoderSpec
from mm_models.weights.names import Dialect
from mm_models.weights.published import Guess, Published, Shapes

_STAGES, _BLOCKS = 4, 2
_RESIDUAL = {
    "norm1.gamma": "residual.0.gamma",
    "conv1": "residual.2",
    "norm2.gamma": "residual.3.gamma",
    "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}
_RESAMPLE = {"resample.1": "resample.1", "time_conv": "time_conv"}
_ATTENTION = {"norm.gamma": "norm.gamma", "to_qkv": "to_qkv", "proj": "proj"}


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


_MEAN_16 = """-0.7571 -0.7089 -0.9113 0.1075 -0.1745 0.9653 -0.1517 1.5508 0.4134 -0.0715 0.5517 -0.3632
    -0.1922 -0.9497 0.2503 -0.2921"""
_STD_16 = """2.8184 1.4541 2.3275 2.6558 1.2196 1.7708 2.6052 2.0743 3.2687 2.1526 2.8652 1.5579 1.6382
    1.1253 2.8251 1.9160"""
_MEAN_48 = """-0.2289 -0.0052 -0.1323 -0.2339 -0.2799 0.0174 0.1838 0.1557 -0.1382 0.0542 0.2813 0.0891 0.1570
    -0.0098 0.0375 -0.1825 -0.2246 -0.1207 -0.0698 0.5109 0.2665 -0.2108 -0.2158 0.2502 -0.2055 -0.0322
    0.1109 0.1567 -0.0729 0.0899 -0.2799 -0.1230 -0.0313 -0.1649 0.0117 0.0723 -0.2839 -0.2083 -0.0520
    0.3748 0.0152 0.1957 0.1433 -0.2944 0.3573 -0.0548 -0.1681 -0.0667"""
_STD_48 = """0.4765 1.0364 0.4514 1.1677 0.5313 0.4990 0.4818 0.5013 0.8158 1.0344 0.5894 1.0901 0.6885
    0.6165
    0.8454 0.4978 0.5759 0.3523 0.7135 0.6804 0.5833 1.4146 0.8986 0.5659 0.7069 0.5338 0.4889 0.4917
    0.4069 0.4999 0.6866 0.4093 0.5709 0.6065 0.6415 0.4944 0.5726 1.2042 0.5458 1.6887 0.3971 1.0600
    0.3943 0.5537 0.5444 0.4089 0.7468 0.7744"""
LATENT_STATISTICS = {
    16: (_numbers(_MEAN_16), _numbers(_STD_16)),
    48: (_numbers(_MEAN_48), _numbers(_STD_48)),
}
"""Mean and standard deviation of each channel by their number: Wan2.1's and Wan2.2's, which the original
files don't hold, as the constants of `vae.py` and `vae2_2.py` say them."""


def _below(ours: str, theirs: str, table: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{own}": f"{theirs}.{their}" for own, their in table.items()}


def _rows(is_residual: bool) -> dict[str, str]:
    """The original code's names by ours."""
    rows = {"quant_conv": "conv1", "post_quant_conv": "conv2"}
    for half in ("encoder", "decoder"):
        middle, mid = f"{half}.middle", f"{half}.mid_block"
        rows |= {f"{half}.conv_in": f"{half}.conv1", f"{half}.conv_out": f"{half}.head.2"}
        rows |= {f"{half}.norm_out.gamma": f"{half}.head.0.gamma"}
        rows |= _below(f"{mid}.resnets.0", f"{middle}.0", _RESIDUAL)
        rows |= _below(f"{mid}.attentions.0", f"{middle}.1", _ATTENTION)
        rows |= _below(f"{mid}.resnets.1", f"{middle}.2", _RESIDUAL)
        blocks = _BLOCKS + (half == "decoder")
        for stage in range(_STAGES):
            for part in range(blocks + (stage < _STAGES - 1)):
                table = _RESIDUAL if part < blocks else _RESAMPLE
                places = _places(half, stage, part, part < blocks, blocks, is_residual)
                rows |= _below(*places, table)
    return rows


def _places(
    half: str, stage: int, part: int, is_block: bool, blocks: int, is_residual: bool
) -> tuple[str, str]:
    """Our path and the original code's of a residual block of a stage, or of its resampling."""
    way = "down" if half == "encoder" else "up"
    number = stage * (blocks + 1) + part
    theirs = f"{half}.{way}samples.{number}"
    if is_residual:
        ours = f"resnets.{part}" if is_block else f"{way}sampler"
        return f"{half}.{way}_blocks.{stage}.{ours}", f"{half}.{way}samples.{stage}.{way}samples.{part}"
    if half == "encoder":
        return f"encoder.down_blocks.{number}", theirs
    return f"decoder.up_blocks.{stage}.{f'resnets.{part}' if is_block else 'upsamplers.0'}", theirs


def parameter_shapes(spec: WanAutoencoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes as in diffusers, which builds the network without memory for it."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    with torch.device("meta"):
        network: Any = AutoencoderKLWan(**architecture(spec))
    return {name: tuple(value.shape) for name, value in network.named_parameters()}


def guess(shapes: Shapes, _: Mapping[str, Any]) -> Guess | None:
    """The spec that weights of these shapes have, which tell it whole; None for another network's."""
    try:
        base_dim, channels = shapes["encoder.conv_in.weight"][:2]
        is_residual = "encoder.down_blocks.0.resnets.0.conv1.weight" in shapes
        step = 1 if is_residual else _BLOCKS + 1
        first, resampling = (".resnets.0", ".downsampler") if is_residual else ("", "")
        stages = [f"encoder.down_blocks.{stage * step}{first}.conv1.weight" for stage in range(_STAGES)]
        after = 0 if is_residual else _BLOCKS
        halvings = tuple(
            f"encoder.down_blocks.{stage * step + after}{resampling}.time_conv.weight" in shapes
            for stage in range(_STAGES - 1)
        )
        decoder_base_dim = shapes["decoder.conv_out.weight"][1]
        patch_size = math.isqrt(channels // 3)
        spec = WanAutoencoderSpec(
            weights=RandomWeights(),
            latent_channels=shapes["post_quant_conv.weight"][0],
            temporal_stride=2 ** sum(halvings),
            spatial_stride=2 ** (_STAGES - 1) * patch_size,
            base_dim=base_dim,
            dim_mult=tuple(shapes[name][0] // base_dim for name in stages),
            temporal_downsample=halvings,
            patch_size=patch_size,
            decoder_base_dim=None if decoder_base_dim == base_dim else decoder_base_dim,
            is_residual=is_residual,
        )
    except (ArithmeticError, LookupError, ValueError):
        return None
    return Guess(spec, "shapes", _SETTINGS)


def published_statistics(spec: WanAutoencoderSpec) -> dict[str, list[float]]:
    """Mean and deviation of the published latents, by their names in diffusers' configuration.

    Raises:
        UserError: No published autoencoder has so many channels.
    """
    if (known := LATENT_STATISTICS.get(spec.latent_channels)) is None:
        message = (
            f"no published autoencoder has {spec.latent_channels} channels, so the mean and deviation of the "
            f"latents are not known; diffusers' config.json has latents_mean and latents_std"
        )
        raise UserError(Problem("spec.autoencoder.latent_channels", message))
    return dict(zip(("latents_mean", "latents_std"), map(list, known), strict=True))


def architecture(spec: WanAutoencoderSpec) -> dict[str, Any]:
    """The spec's fields by their names in diffusers' configuration."""
    channels = 3 * spec.patch_size**2
    return {
        "base_dim": spec.base_dim,
        "decoder_base_dim": spec.decoder_base_dim or spec.base_dim,
        "z_dim": spec.latent_channels,
        "dim_mult": list(spec.dim_mult),
        "num_res_blocks": spec.num_res_blocks,
        "temperal_downsample": list(spec.temporal_downsample),
        "is_residual": spec.is_residual,
        "in_channels": channels,
        "out_channels": channels,
        "patch_size": None if spec.patch_size == 1 else spec.patch_size,
        "scale_factor_temporal": spec.temporal_stride,
        "scale_factor_spatial": spec.spatial_stride,
    }


def diffusers_config(spec: WanAutoencoderSpec) -> dict[str, Any]:
    """`config.json` of diffusers' `AutoencoderKLWan`, with the statistics of the published latents."""
    return {"_class_name": "AutoencoderKLWan", **architecture(spec), **published_statistics(spec)}


_SETTINGS = frozenset(
    ("weights", "latent_mode", "dtype", "tiling", "tile_size", "tile_stride"),
)


def _published(version: str, family: Any, name: str, is_residual: bool) -> Published:
    rows = _rows(is_residual)
    return Published(
        about=f"{version}'s autoencoder",
        spec=WanAutoencoderSpec,
        dialects=(
            Dialect("diffusers", "diffusers' AutoencoderKLWan", {ours: ours for ours in rows}),
            Dialect("wan", "the original code's WanVAE_", rows),
        ),
        anchor="encoder.conv_in.weight",
        unused=frozenset(),
        families=lambda: {name: family.autoencoder},
        guess=guess,
        configs={"diffusers": diffusers_config},
        shapes=parameter_shapes,
        part="autoencoder",
        kept=frozenset(("latents_mean", "latents_std")),
        settings=_SETTINGS,
    )


WAN21 = _published("Wan2.1", wan21.T2V_14B, "wan21.T2V_14B", False)
WAN22 = _published("Wan2.2", wan22.TI2V_5B, "wan22.TI2V_5B", True)
