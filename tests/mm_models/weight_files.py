"""Weights of small networks of every conditioning kind, in the layouts that others write."""

from pathlib import Path

import attrs
import torch
from safetensors.torch import save_file
from torch import Tensor

from mm_config.specs.kinds import Conditioning
from mm_config.specs.wan import WanTransformerSpec
from mm_models.wan.names import MINDSPEED, WAN
from tests.mm_models.parity import diffusers_of, fill
from tests.tiny_wan import TINY_WAN

T2V = attrs.evolve(TINY_WAN, num_layers=3)
I2V = attrs.evolve(T2V, in_channels=9, conditioning=Conditioning.FIRST_FRAME, image_dim=6)
SPECS = {
    "t2v": T2V,
    "i2v": I2V,
    "flf2v": attrs.evolve(I2V, conditioning=Conditioning.FIRST_AND_LAST_FRAME, image_positions=5),
    "ti2v": attrs.evolve(T2V, in_channels=48, out_channels=48, conditioning=Conditioning.CLEAN_FIRST_FRAME),
}


def values(spec: WanTransformerSpec, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random values under our names."""
    return {name: fill(shape, name).to(dtype) for name, shape in spec.parameter_shapes().items()}


def write_diffusers(folder: Path, spec: WanTransformerSpec, shard: str = "10GB") -> dict[str, Tensor]:
    """What diffusers' `save_pretrained` writes; returns the values."""
    network = diffusers_of(spec).to_empty(device="cpu")
    network.load_state_dict(values(spec))
    network.save_pretrained(folder, max_shard_size=shard)
    return values(spec)


def write_wan(file: Path, spec: WanTransformerSpec) -> None:
    """A file of the original names: safetensors, or torch.save by its suffix."""
    tensors = {WAN.theirs(name): value for name, value in values(spec).items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, file) if file.suffix == ".pth" else save_file(tensors, file)


def mindspeed_stages(spec: WanTransformerSpec, blocks: list[int]) -> list[dict[str, Tensor]]:
    """MindSpeed-MM's parts of so many blocks each, numbered from 0 in every part."""
    parts: list[dict[str, Tensor]] = [{} for _ in blocks]
    starts = [sum(blocks[:index]) for index in range(len(blocks))]
    for name, value in values(spec).items():
        theirs = MINDSPEED.theirs(name)
        if not theirs.startswith("blocks."):
            parts[-1 if theirs.startswith("head.") else 0][theirs] = value
            continue
        _, number, rest = theirs.split(".", 2)
        part = max(index for index, start in enumerate(starts) if start <= int(number))
        parts[part][f"blocks.{int(number) - starts[part]}.{rest}"] = value
    return parts
