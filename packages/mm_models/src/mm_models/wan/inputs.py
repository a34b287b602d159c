"""What a call of Wan's transformer must look like."""

from collections.abc import Iterator

from torch import Tensor

from mm_config.schema import Problem, UserError
from mm_config.specs import WanTransformerSpec


def token_grid(
    spec: WanTransformerSpec, latents_BCTHW: Tensor, timestep: Tensor, text_BLT: Tensor, image: Tensor | None
) -> tuple[int, int, int]:
    """Tokens along frames, height and width, once everything about a call has been checked.

    Raises:
        UserError: What is wrong with the inputs' shapes, all at once.
    """
    if latents_BCTHW.ndim != 5:
        shape = list(latents_BCTHW.shape)
        raise UserError(f"latents must be [batch, channels, frames, height, width], got {shape}")
    batch, _, *sizes = latents_BCTHW.shape
    frames, height, width = (size // patch for size, patch in zip(sizes, spec.patch_size, strict=True))
    problems = [
        *_of_latents(spec, latents_BCTHW),
        *_of_timestep(timestep, batch, frames, frames * height * width),
        *_of_features("text", text_BLT, batch, None, spec.text_dim),
        *_of_image(spec, image, batch),
    ]
    if problems:
        raise UserError(Problem("", problem) for problem in problems)
    return frames, height, width


def _of_latents(spec: WanTransformerSpec, latents_BCTHW: Tensor) -> Iterator[str]:
    _, channels, *sizes = latents_BCTHW.shape
    if channels != spec.in_channels:
        yield f"latents have {channels} channels, the network takes {spec.in_channels}"
    for axis, size, patch in zip(("frames", "height", "width"), sizes, spec.patch_size, strict=True):
        if size % patch:
            yield f"latents' {axis} must be a multiple of the patch's {patch}, got {size}"
        elif size // patch > spec.rope_max_seq_len:
            yield f"latents' {axis} has {size // patch} tokens, the rotary table {spec.rope_max_seq_len}"


def _of_timestep(timestep: Tensor, batch: int, frames: int, tokens: int) -> Iterator[str]:
    if tuple(timestep.shape) not in ((batch,), (batch, frames), (batch, tokens)):
        forms = f"[{batch}], [{batch}, {frames}] or [{batch}, {tokens}]"
        yield f"timesteps must be {forms}, got {list(timestep.shape)}"


def _of_image(spec: WanTransformerSpec, image: Tensor | None, batch: int) -> Iterator[str]:
    if spec.image_dim is None:
        if image is not None:
            yield "image features are given, but the network has no image branch (image_dim is None)"
    elif image is None:
        yield f"image features are missing: the network has an image branch of width {spec.image_dim}"
    else:
        yield from _of_features("image", image, batch, spec.image_positions, spec.image_dim)


def _of_features(kind: str, features: Tensor, batch: int, tokens: int | None, width: int) -> Iterator[str]:
    shape = tuple(features.shape)
    if len(shape) != 3 or shape != (batch, tokens or shape[1], width) or not shape[1]:
        wanted = f"[{batch}, {tokens or 'tokens'}, {width}]"
        yield f"{kind} features must be {wanted}, got {list(shape)}"
