"""How far two videos are apart. Shapes: T frames, H height, W width, K values of a window."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the luma of ITU-R BT.601."""
_WINDOW, _WIDTH = 11, 1.5
"""Of SSIM's Gaussian window: values along each axis, and standard deviation, in pixels."""
_STABLE = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(frames_THW3: Tensor, others_THW3: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE) over all values of uint8 frames.

    Infinite where they are equal.
    """
    squares = [
        float((one.double() - other.double()).square().mean())
        for one, other in zip(frames_THW3, others_THW3, strict=True)
    ]
    error = sum(squares) / len(squares)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(frames_THW3: Tensor, others_THW3: Tensor) -> float:
    """Structural similarity of the luma of uint8 frames, the mean over all places and frames; 1 where equal.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 13(4),
    2004, equation 13, with the Gaussian window of 11 x 11 pixels wherever it lies inside of the frame.
    """
    found = [_ssim(*map(_luma, pair)) for pair in zip(frames_THW3, others_THW3, strict=True)]
    return sum(found) / len(found)


def relative_error(latents: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """|others - latents| / |latents|, in the 2-norm over all values of all videos."""
    pairs = zip(latents, others, strict=True)
    apart = math.hypot(*(float((other.double() - one.double()).norm()) for one, other in pairs))
    size = math.hypot(*(float(one.double().norm()) for one in latents))
    return apart / size if apart else 0.0


def _ssim(one_HW: Tensor, other_HW: Tensor) -> float:
    a, b = _STABLE
    squares = one_HW * one_HW, other_HW * other_HW, one_HW * other_HW
    mean, other_mean, square, other_square, product = map(_blurred, (one_HW, other_HW, *squares))
    covariance = product - mean * other_mean
    variances = square - mean**2 + other_square - other_mean**2
    similar = (2 * mean * other_mean + a) * (2 * covariance + b)
    return float((similar / ((mean**2 + other_mean**2 + a) * (variances + b))).mean())


def _luma(frame_HW3: Tensor) -> Tensor:
    return frame_HW3.double() @ torch.tensor(_LUMA, dtype=torch.float64)


def _blurred(image_HW: Tensor) -> Tensor:
    """Means in the window, along one axis and then along the other."""
    places = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    weights_K = torch.softmax(-(places**2) / (2 * _WIDTH**2), 0)
    along_height = F.conv2d(image_HW[None, None], weights_K.view(1, 1, -1, 1))
    return F.conv2d(along_height, weights_K.view(1, 1, 1, -1))[0, 0]
