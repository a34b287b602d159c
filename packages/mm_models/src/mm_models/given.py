"""What a network is given besides noise, time and caption: one way for training and generation.

Shapes: B videos, N frames of pixels, C latent channels, T H W latent frames, height and width, S tokens,
I image tokens, K image features.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from mm_config.specs import Conditioning, ModelSpec
from mm_models.autoencoders import Autoencoder
from mm_models.autoencoders.kept import kept_of, latents_of
from mm_models.images import ImageEncoder


@attrs.frozen(eq=False)
class Given:
    """What given frames come to, float32 on the device; nothing at all for a network of text alone."""

    beside_BCTHW: Tensor | None = None
    """Further input channels: a mask, 1 where a frame is given, then the latents of the given frames."""
    clean_BC1HW: Tensor | None = None
    """Latents that take the place of the first noisy frame."""
    has_clean_B: Tensor | None = None
    """Whose first frame is clean; the others are made from text alone."""
    image_BIK: Tensor | None = None
    """The image encoder's features of the given frames, one frame's after the other's."""


NOTHING = Given()
"""Of a network that is conditioned on text alone."""
GIVEN_FRAMES = {
    Conditioning.TEXT: 0,
    Conditioning.FIRST_FRAME: 1,
    Conditioning.FIRST_AND_LAST_FRAME: 2,
    Conditioning.CLEAN_FIRST_FRAME: 1,
}
"""How many frames a network is given."""


@torch.no_grad()
def given_frames(
    model: ModelSpec,
    temporal_stride: int,
    autoencoder: Autoencoder,
    image_encoder: ImageEncoder | None,
    frames: Sequence[Tensor],
    num_frames: int,
) -> Given:
    """What a network is given of the first frame, or of the first and the last one.

    Formulas: diffusers' `WanImageToVideoPipeline.prepare_latents` and Wan's `image2video.py`,
    `first_last_frame2video.py` and `textimage2video.py`.

    Args:
        model: The network's spec, whose conditioning says what is given.
        temporal_stride: Frames per latent frame after the first.
        autoencoder: Makes latents; of its posterior the mode is taken, whatever its spec says of latents.
        image_encoder: For networks with an image branch.
        frames: The first frame and, where the network takes it, the last: each `[B, 3, H, W]` in [-1, 1], of
            the video's size.
        num_frames: N of the video.
    """
    condition = condition_latents(model, autoencoder, frames, num_frames)
    image = None if image_encoder is None else image_features(image_encoder, frames)
    return given_latents(model, temporal_stride, condition, image, num_frames)


def given_latents(
    model: ModelSpec,
    temporal_stride: int,
    condition_BCTHW: Tensor | None,
    image_BIK: Tensor | None,
    num_frames: int,
) -> Given:
    """The same of frames that were encoded before.

    Args:
        model, temporal_stride, num_frames: Of `given_frames`.
        condition_BCTHW: Of `condition_latents`.
        image_BIK: Of `image_features`, for networks with an image branch.
    """
    if condition_BCTHW is None:
        return NOTHING
    if model.conditioning is Conditioning.CLEAN_FIRST_FRAME:
        has_clean_B = torch.ones(len(condition_BCTHW), dtype=torch.bool)
        return Given(clean_BC1HW=condition_BCTHW, has_clean_B=has_clean_B)
    mask = given_mask(GIVEN_FRAMES[model.conditioning], num_frames, temporal_stride, condition_BCTHW)
    return Given(beside_BCTHW=torch.cat((mask, condition_BCTHW), dim=1), image_BIK=image_BIK)


@torch.no_grad()
def condition_latents(
    model: ModelSpec, autoencoder: Autoencoder, frames: Sequence[Tensor], num_frames: int
) -> Tensor | None:
    """Latents of the given frames; arguments as `given_frames`.

    Returns:
        `[B, C, T, H, W]` of the video that has them at their places, or `[B, C, 1, H, W]` of a clean first
        frame; None for a network of text alone.
    """
    if model.conditioning is Conditioning.TEXT:
        return None
    if model.conditioning is Conditioning.CLEAN_FIRST_FRAME:
        return mode_latents(autoencoder, frames[0].unsqueeze(2))
    return mode_latents(autoencoder, video_of_given(frames, num_frames))


@torch.no_grad()
def image_features(encoder: ImageEncoder, frames: Sequence[Tensor]) -> Tensor:
    """`[B, I, K]`: the features of the given frames, one frame's after the other's."""
    return torch.cat([encoder.encode(frame) for frame in frames], dim=1)


def own_frames(model: ModelSpec, video_BCTHW: Tensor) -> list[Tensor]:
    """The frames of a video that its network is given: none, its first, or its first and its last."""
    return [video_BCTHW[:, :, place] for place in (0, -1)[: GIVEN_FRAMES[model.conditioning]]]


def without_frames(given: Given, from_text: Sequence[bool]) -> Given:
    """The same, where some videos are made from text alone by a network that may be given a clean frame."""
    if given.has_clean_B is None:
        return given
    return attrs.evolve(given, has_clean_B=given.has_clean_B & ~torch.tensor(from_text))


def video_of_given(frames: Sequence[Tensor], num_frames: int) -> Tensor:
    """`[B, 3, N, H, W]`: the given frames at their places, zeros (grey) between and after them."""
    first = frames[0]
    video = first.new_zeros((*first.shape[:2], num_frames, *first.shape[2:]))
    video[:, :, 0] = first
    if len(frames) == 2:
        video[:, :, -1] = frames[1]
    return video


def given_mask(given: int, num_frames: int, temporal_stride: int, latents_BCTHW: Tensor) -> Tensor:
    """`[B, temporal_stride, T, H, W]`: 1 where a frame is given.

    Each latent frame has a channel for each of its frames; the first frame, which has a latent frame of its
    own, fills all of that one's channels.
    """
    batch, _, latent_frames, height, width = latents_BCTHW.shape
    is_given_N = torch.zeros(num_frames)
    is_given_N[0] = 1
    if given == 2:
        is_given_N[-1] = 1
    padded = torch.cat((is_given_N[:1].expand(temporal_stride - 1), is_given_N))
    mask_KT = padded.view(latent_frames, temporal_stride).T.to(latents_BCTHW)
    return mask_KT[None, :, :, None, None].expand(batch, -1, -1, height, width)


def mode_latents(autoencoder: Autoencoder, video_BCTHW: Tensor) -> Tensor:
    """Normalised latents: the mode of the posterior, never a sample."""
    kept = kept_of(autoencoder, video_BCTHW, sampled=False)
    return torch.stack([latents_of(one, sample=False) for one in kept]).float()


def network_inputs(
    given: Given, noisy_BCTHW: Tensor, timestep_B: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What the network is called with beside the text: latents, timesteps, image features.

    Args:
        given: Of the same B videos.
        noisy_BCTHW: Noised latents.
        timestep_B: float32.

    Returns:
        The latents with what is beside them, or with the clean frame in its place; the timesteps `[B]`, or
        `[B, T]` where the first frame may be clean: 0 for it; the image features, where there are any.
    """
    if given.beside_BCTHW is not None:
        return torch.cat((noisy_BCTHW, given.beside_BCTHW.to(noisy_BCTHW)), 1), timestep_B, given.image_BIK
    if given.has_clean_B is None:
        return noisy_BCTHW, timestep_B, given.image_BIK
    timestep_BT = timestep_B[:, None].repeat(1, noisy_BCTHW.shape[2])
    timestep_BT[:, 0] *= ~given.has_clean_B.to(timestep_B.device)
    return with_clean_frame(given, noisy_BCTHW), timestep_BT, given.image_BIK


def with_clean_frame(given: Given, latents_BCTHW: Tensor) -> Tensor:
    """Latents whose first frame is the given one, where there is one."""
    if given.clean_BC1HW is None or given.has_clean_B is None:
        return latents_BCTHW
    has_clean = given.has_clean_B.to(latents_BCTHW.device).view(-1, 1, 1, 1, 1)
    first = torch.where(has_clean, given.clean_BC1HW.to(latents_BCTHW), latents_BCTHW[:, :, :1])
    return torch.cat((first, latents_BCTHW[:, :, 1:]), dim=2)


def has_loss(given: Given, latents_BCTHW: Tensor) -> Tensor | None:
    """`[B, 1, T, 1, 1]`, 1 where the network is to predict and 0 on clean frames; None: everywhere."""
    if given.has_clean_B is None:
        return None
    mask = latents_BCTHW.new_ones((len(latents_BCTHW), 1, latents_BCTHW.shape[2], 1, 1))
    mask[:, :, 0] = (~given.has_clean_B.to(mask.device)).view(-1, 1, 1, 1).to(mask)
    return mask
