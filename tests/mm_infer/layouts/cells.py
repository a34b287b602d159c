"""Generations so small that ranks make their videos in moments, and what ranks may share of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import mm_models
from mm_config import replace
from mm_config.families.tiny import TINY
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs import (
    ClipImageEncoderSpec,
    Conditioning,
    GenerationRequest,
    GuidanceMode,
    InferSpec,
    ReleasedWeights,
)
from tests.tiny_clip import write_clip

KINDS: Mapping[str, Mapping[str, Any]] = {
    "text": {},
    "clean frame": {
        "model.conditioning": Conditioning.CLEAN_FIRST_FRAME,
        "boundary": None,
        "low_noise": None,
        "sampler.guidance_low_noise": 1.0,
    },
    "first frame": {"model.conditioning": Conditioning.FIRST_FRAME, "model.in_channels": 22},
    "image branch": {
        "model.conditioning": Conditioning.FIRST_FRAME,
        "model.in_channels": 22,
        "model.image_dim": 16,
        "image_encoder": ClipImageEncoderSpec(
            weights=ReleasedWeights(name="test/ranks", subfolder="clip"),
            image_dim=16,
            image_size=28,
            num_layers=2,
            num_heads=2,
            d_ff=24,
        ),
    },
}
"""What the networks are given beside the text: of A14B, of TI2V-5B (timesteps by frame), of I2V-A14B, and of
Wan2.1's image branch."""

ALONE = {"data": 1, "guidance": 1, "ring": 1, "ulysses": 1, "tensor": 1, "fsdp": False}
Layout = Mapping[str, Any]


def layouts(ranks: int) -> Iterator[Layout]:
    """All that so many ranks can do together; FSDP2 where more than the matrices is shared."""
    names = ("data", "guidance", "ring", "ulysses", "tensor")
    grid = np.ndindex(*(3 if ranks == 2 and name == "guidance" else ranks + 1 for name in names))
    for degrees in grid:
        found = dict(zip(names, degrees, strict=True))
        if math.prod(degrees) == ranks and found["guidance"] <= 2:
            yield {**found, "fsdp": False}
            if ranks // (found["data"] * found["tensor"]) > 1:
                yield {**found, "fsdp": True}


def name_of(layout: Layout) -> str:
    """A layout in words."""
    return " ".join(
        f"{name}{'' if name == 'fsdp' else int(size)}"
        for name, size in layout.items()
        if size > 1 or size is True
    )


def spec_of(kind: str, layout: Layout = ALONE, **more: Any) -> InferSpec:
    """45 tokens, which no number of ranks divides, in two experts of which the second has no guidance."""
    spec = TINY.infer(
        high_noise=ReleasedWeights(name="test/ranks", subfolder=f"{kind}/high"),
        low_noise=ReleasedWeights(name="test/ranks", subfolder=f"{kind}/low"),
        num_frames=9,
        height=48,
        width=80,
    )
    changes = {
        "model.hidden_size": 32,
        "model.num_attention_heads": 4,
        "model.ffn_dim": 48,
        "model.num_layers": 2,
        "model.patch_size": (1, 2, 2),
        "sampler.steps": 4,
        "sampler.guidance_low_noise": 1.0,
        **KINDS[kind],
        "runtime.batch_size": 2,
        "runtime.device": "cpu",
        **{f"runtime.parallel.{name}": size for name, size in layout.items() if name != "guidance"},
    }
    if layout["guidance"] == 2:
        changes["runtime.guidance"] = GuidanceMode.PARALLEL
    return replace(spec, {**changes, **more})


def requests_of(kind: str, folder: Path) -> list[GenerationRequest]:
    """Three videos, in batches of two and one; those of the clean frame with and without one."""
    image, other = (str(folder / f"{name}.png") for name in ("a", "b"))
    files = {"text": (None, None, None), "clean frame": (image, image, None)}.get(kind, (image, other, image))
    texts = ("a red circle moving up", "a blue square", "a green triangle moving right")
    return [
        GenerationRequest(prompt=text, seed=seed, image=file, negative_prompt="a blur")
        for seed, (text, file) in enumerate(zip(texts, files, strict=True), 3)
    ]


def released(folder: Path) -> RunOptions:
    """Weights of all kinds, whose output layer is not zero, and two images; where they are found."""
    for kind in KINDS:
        for seed, name in enumerate(("high", "low")):
            network = mm_models.build(spec_of(kind).model, device="cpu")
            mm_models.initialize(network, seed)
            tensors = dict(network.state_dict())
            draws = torch.Generator().manual_seed(seed)
            tensors["proj_out.weight"] = 0.3 * torch.randn(tensors["proj_out.weight"].shape, generator=draws)
            (folder / kind / name).mkdir(parents=True)
            save_file(tensors, folder / kind / name / "diffusion_pytorch_model.safetensors")
    torch.manual_seed(0)
    write_clip(folder / "clip", layers=2)
    for seed, name in enumerate(("a", "b")):
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((80, 48), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return RunOptions(
        runs_dir=folder / "runs", locations=Locations((Location("test/ranks", folder, "the test"),))
    )
