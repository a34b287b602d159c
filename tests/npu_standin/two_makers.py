"""What two ranks do in test_generating_ranks.py: `torchrun --nproc-per-node 2 two_makers.py FOLDER`.

They make the video of each layout on the device, of the weights in the folder; `FOLDER/<layout>-<rank>.pt`
has each rank's latents and frames.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.specs.infer import InferSpec
from mm_config.specs.serving import GuidanceMode
from mm_infer.layout import laid_out
from mm_infer.loading import loaded
from mm_models import device
from mm_models.ranks import joined
from tests.mm_infer.residents import PROMPT, found_in, spec_of

LAYOUTS: dict[str, dict[str, Any]] = {
    "ulysses": {"runtime.parallel.ulysses": 2},
    "ring": {"runtime.parallel.ring": 2},
    "guidance": {"runtime.guidance": GuidanceMode.PARALLEL},
    "tensor": {"runtime.parallel.tensor": 2},
    "fsdp": {"runtime.parallel.ulysses": 2, "runtime.parallel.fsdp": True},
    "tiles": {"runtime.parallel.ulysses": 2, "runtime.parallel.autoencoder": True},
}
"""What the two ranks share, by its name."""


def tiled() -> InferSpec:
    """A generation whose videos are decoded in four tiles that overlap."""
    tiles = {"tiling": True, "tile_size": (48, 48), "tile_stride": (32, 32)}
    size = {"height": 64, "width": 64}
    return replace(spec_of(), size | {f"autoencoder.{name}": value for name, value in tiles.items()})


def made(spec: InferSpec, options: RunOptions) -> dict[str, torch.Tensor]:
    """The latents of the spec's video, and its frames."""
    with laid_out(spec) as layout:
        pipeline = loaded(spec, options, None, layout)
        latents = pipeline.denoise([PROMPT])
        (video,) = pipeline([PROMPT], output="float")
    return {"latents": latents.cpu(), "frames": video.frames}


def main(folder: Path) -> None:
    with joined(device.pick("npu")) as ranks:
        options = found_in(folder)
        for name, layout in LAYOUTS.items():
            found = made(replace(tiled(), layout | {"runtime.device": "npu"}), options)
            torch.save(found, folder / f"{name}-{ranks.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
