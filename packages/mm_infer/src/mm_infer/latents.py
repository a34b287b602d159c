"""Files of denoised latents: written before they are decoded, so that they outlive a decode that fails."""

from __future__ import annotations

import hashlib
from pathlib import Path

import attrs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mm_config.durable import staged_file
from mm_config.runs import Run, comment_for
from mm_config.schema import Problem, UserError
from mm_config.specs import GenerationRequest, InferSpec
from mm_config.stored import COMMENT

FOLDER = "latents"
"""Of a run folder."""
SUFFIX = ".safetensors"
_DIGEST = "digest"


@attrs.frozen(eq=False)
class Denoised:
    """A video that is denoised and not decoded yet."""

    request: GenerationRequest
    """What was asked for."""
    latents: Tensor
    """`[C, T, H, W]` float32."""


def write_latents(path: Path, denoised: Denoised, spec: InferSpec, run: Run) -> None:
    """Writes latents, whole or not at all, whose metadata hold the comment that the video's file will have.

    Raises:
        UserError: The file can't be written.
    """
    latents = denoised.latents.detach().float().cpu().contiguous()
    said = {COMMENT: comment_for(spec, denoised.request, run.record), _DIGEST: _digest_of(latents)}
    try:
        path.parent.mkdir(exist_ok=True)
        with staged_file(path) as stage:
            stage.write_bytes(save({FOLDER: latents}, said))
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from error


def read_latents(path: Path, channels: int) -> Tensor:
    """The latents `[C, T, H, W]` of a file that `write_latents` wrote.

    Args:
        path: The file.
        channels: Of the autoencoder that is to decode them.

    Raises:
        UserError: It can't be read, is damaged or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            latents = file.get_tensor(FOLDER)
            digest = (file.metadata() or {}).get(_DIGEST)
    except (OSError, SafetensorError) as error:
        raise UserError(Problem(str(path), f"can't be read: {error}")) from error
    if latents.ndim != 4 or latents.dtype != torch.float32 or not latents.numel():
        why = f"holds {latents.dtype} of the shape {list(latents.shape)}, not float32 of [C, T, H, W]"
        raise UserError(Problem(str(path), why))
    if digest != _digest_of(latents):
        raise UserError(Problem(str(path), "is damaged: its values are not those that were written"))
    if len(latents) != channels:
        why = f"has {len(latents)} channels, but spec.autoencoder.latent_channels is {channels}"
        raise UserError(Problem(str(path), why))
    return latents


def _digest_of(latents: Tensor) -> str:
    return hashlib.sha256(latents.numpy().tobytes()).hexdigest()
