"""Peak memory of decoding, by length: `python benchmarks/decode_memory.py [--side 96] [--base-dim 32]`.

Each line is a process of its own, which draws Wan2.1's autoencoder at a width, decodes latents of a length
and says how far its resident memory rose above what it was before: by diffusers' `decode`, which gives the
whole video, by slices that are dropped one after the other, and by slices of tiles.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

LATENT_FRAMES = (21, 81)
WAYS = ("diffusers", "slices", "tiles")


def main() -> None:
    """Prints a table, or measures one line of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=96, help="height and width in pixels")
    parser.add_argument("--base-dim", type=int, default=32, help="width of the first stage; Wan2.1's is 96")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FRAMES"), help="one line, as JSON")
    given = parser.parse_args()
    if given.measure:
        way, frames = given.measure
        print(json.dumps(risen(way, int(frames), given.side, given.base_dim)))
        return
    print(
        f"{given.side}x{given.side} pixels, base_dim {given.base_dim}, float32: MiB above the process before"
    )
    for way in WAYS:
        sizes = []
        for frames in LATENT_FRAMES:
            line = [sys.executable, __file__, "--side", str(given.side), "--base-dim", str(given.base_dim)]
            done = subprocess.run(
                [*line, "--measure", way, str(frames)], check=True, capture_output=True, text=True
            )
            sizes.append(json.loads(done.stdout.splitlines()[-1]))
        told = "  ".join(
            f"{frames} latent frames {size:7.1f}" for frames, size in zip(LATENT_FRAMES, sizes, strict=True)
        )
        print(f"{way:10} {told}")


def risen(way: str, frames: int, side: int, base_dim: int) -> float:
    """MiB by which decoding raised the peak of this process."""
    import torch

    import mm_models
    from mm_config.specs import RandomWeights, WanAutoencoderSpec

    torch.set_num_threads(1)
    half = side // 16 * 8
    spec = WanAutoencoderSpec(
        weights=RandomWeights(seed=0),
        base_dim=base_dim,
        tiling=way == "tiles",
        tile_size=(half + 16, half + 16),
        tile_stride=(half, half),
    )
    autoencoder = mm_models.build_autoencoder(spec)
    latents = torch.randn(1, 16, frames, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    before = peak_mib()
    with torch.inference_mode():
        if way == "diffusers":
            autoencoder.network.decode(latents)  # type: ignore[attr-defined]
        else:
            for _ in mm_models.decoded_slices(autoencoder, latents):
                pass
    return peak_mib() - before


def peak_mib() -> float:
    """The most resident memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
