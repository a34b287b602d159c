"""Wan's text encoder and autoencoders as plain functions over state dicts of the official code's names.

Written after `wan/modules/t5.py`, `vae.py` and `vae2_2.py`, without caches: a clip has one frame, so that a
causal convolution sees zeros before it, and the convolutions over time of resampling are not reached.
Shapes: B batch, C channels, H heads, L tokens, D width.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
STAGES = range(4)


def t5(state: State, ids_BL: Tensor, heads: int) -> Tensor:
    """`[B, L, D]`, after `T5Encoder.forward`."""
    x = F.embedding(ids_BL, state["token_embedding.weight"])
    layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    for layer in range(layers):
        own = {n.removeprefix(f"blocks.{layer}."): v for n, v in state.items() if f"blocks.{layer}." in n}
        y = _t5_norm(x, own["norm1.weight"])
        q, k, v = (_heads(F.linear(y, own[f"attn.{one}.weight"]), heads) for one in "qkv")
        buckets_LL = _buckets(ids_BL.shape[1])
        scores = q @ k.mT + own["pos_embedding.embedding.weight"][buckets_LL].permute(2, 0, 1)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(mixed, own["attn.o.weight"])
        y = _t5_norm(x, own["norm2.weight"])
        gate = F.gelu(F.linear(y, own["ffn.gate.0.weight"]), approximate="tanh")
        x = x + F.linear(gate * F.linear(y, own["ffn.fc1.weight"]), own["ffn.fc2.weight"])
    return _t5_norm(x, state["norm.weight"])


def _t5_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def _heads(x_BLD: Tensor, heads: int) -> Tensor:
    return x_BLD.unflatten(-1, (heads, -1)).transpose(1, 2)


def _buckets(length: int) -> Tensor:
    """32 buckets of distances in both directions: 8 exact ones, then logarithmic ones up to 128."""
    distance = torch.arange(length)[None] - torch.arange(length)[:, None]
    far = 8 + (torch.log(distance.abs().clamp(min=1) / 8) / math.log(128 / 8) * 8).long()
    return torch.where(distance.abs() < 8, distance.abs(), far.clamp(max=15)) + 16 * (distance > 0)


def encode(state: State, frame_B3HW: Tensor) -> Tensor:
    """The mean of the latents of one frame, before their normalisation."""
    is_22 = state["encoder.conv1.weight"].shape[1] == 12
    x = frame_B3HW[:, :, None]
    x = _conv(state, "encoder.conv1", _folded(x) if is_22 else x)
    for stage in STAGES:
        before = x
        for part in range(3 if stage < 3 else 2):
            name = f"{stage}.downsamples.{part}" if is_22 else str(3 * stage + part)
            x = (_block if part < 2 else _smaller)(state, f"encoder.downsamples.{name}", x)
        if is_22:
            x = x + _averaged(before, x.shape[1], 2 if stage in (1, 2) else 1, 2 if stage < 3 else 1)
    return _conv(state, "conv1", _ends(state, "encoder", _middle(state, "encoder", x))).chunk(2, 1)[0]


def decode(state: State, latents: Tensor) -> Tensor:
    """The frame of latents as `encode` makes them, `[B, 3, 1, H, W]`."""
    is_22 = state["encoder.conv1.weight"].shape[1] == 12
    x = _middle(state, "decoder", _conv(state, "decoder.conv1", _conv(state, "conv2", latents)))
    for stage in STAGES:
        before = x
        for part in range(4 if stage < 3 else 3):
            name = f"{stage}.upsamples.{part}" if is_22 else str(4 * stage + part)
            x = (_block if part < 3 else _larger)(state, f"decoder.upsamples.{name}", x)
        if is_22 and stage < 3:
            x = x + _repeated(before, x.shape[1], 2 if stage in (0, 1) else 1)
    x = _ends(state, "decoder", x)
    return _unfolded(x) if is_22 else x


def _conv(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    time, size = weight.shape[2], weight.shape[-1] // 2
    return F.conv3d(F.pad(x, (size, size, size, size, time - 1, 0)), weight, state[f"{name}.bias"])


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.normalize(x, dim=1) * x.shape[1] ** 0.5 * state[f"{name}.gamma"].view(1, -1, 1, 1, 1)


def _block(state: State, name: str, x: Tensor) -> Tensor:
    beside = _conv(state, f"{name}.shortcut", x) if f"{name}.shortcut.weight" in state else x
    for norm, conv in ((0, 2), (3, 6)):
        x = F.silu(_norm(state, f"{name}.residual.{norm}", x))
        x = _conv(state, f"{name}.residual.{conv}", x)
    return x + beside


def _middle(state: State, half: str, x: Tensor) -> Tensor:
    x = _block(state, f"{half}.middle.0", x)
    y = _norm(state, f"{half}.middle.1.norm", x)[:, :, 0]
    qkv = F.conv2d(y, state[f"{half}.middle.1.to_qkv.weight"], state[f"{half}.middle.1.to_qkv.bias"])
    q, k, v = qkv.flatten(2).mT.chunk(3, -1)
    mixed = ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).mT.reshape(y.shape)
    out = F.conv2d(mixed, state[f"{half}.middle.1.proj.weight"], state[f"{half}.middle.1.proj.bias"])
    return _block(state, f"{half}.middle.2", x + out[:, :, None])


def _ends(state: State, half: str, x: Tensor) -> Tensor:
    return _conv(state, f"{half}.head.2", F.silu(_norm(state, f"{half}.head.0", x)))


def _per_frame(state: State, name: str, x: Tensor, stride: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    weight, bias = state[f"{name}.resample.1.weight"], state[f"{name}.resample.1.bias"]
    return F.conv2d(change(x[:, :, 0]), weight, bias, stride)[:, :, None]


def _smaller(state: State, name: str, x: Tensor) -> Tensor:
    return _per_frame(state, name, x, 2, lambda frame: F.pad(frame, (0, 1, 0, 1)))


def _larger(state: State, name: str, x: Tensor) -> Tensor:
    def change(frame: Tensor) -> Tensor:
        return F.pad(F.interpolate(frame, scale_factor=2.0, mode="nearest-exact"), (1, 1, 1, 1))

    return _per_frame(state, name, x, 1, change)


def _averaged(x: Tensor, channels: int, time: int, space: int) -> Tensor:
    """The mean of neighbouring values in groups of channels; a first frame has zeros before it."""
    x = F.pad(x, (0, 0, 0, 0, time - 1, 0))
    b, c, t, h, w = x.shape
    x = x.view(b, c, t // time, time, h // space, space, w // space, space).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, channels, -1, t // time, h // space, w // space).mean(2)


def _repeated(x: Tensor, channels: int, time: int) -> Tensor:
    """Values repeated over what grows; of a first frame the last copy stays."""
    b, c, t, h, w = x.shape
    x = x.repeat_interleave(channels * time * 4 // c, dim=1)
    x = x.view(b, channels, time, 2, 2, t, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, channels, t * time, 2 * h, 2 * w)[:, :, time - 1 :]


def _folded(x: Tensor) -> Tensor:
    b, c, t, h, w = x.shape
    x = x.view(b, c, t, h // 2, 2, w // 2, 2).permute(0, 1, 6, 4, 2, 3, 5)
    return x.reshape(b, c * 4, t, h // 2, w // 2)


def _unfolded(x: Tensor) -> Tensor:
    b, c, t, h, w = x.shape
    x = x.view(b, c // 4, 2, 2, t, h, w).permute(0, 1, 4, 5, 3, 6, 2)
    return x.reshape(b, c // 4, t, h * 2, w * 2)
