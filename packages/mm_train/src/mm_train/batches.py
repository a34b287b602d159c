"""What a network makes of the sizes of clips, and all clips that a plan takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mm_config.specs import TrainSpec
from mm_data import Asked, Dataset, Plan, Shape


def asks_of(plan: Plan, dataset: Dataset) -> Callable[[], Iterator[Asked]]:
    """All clips that a plan takes, each in its shape, as often as that is called; they draw nothing yet.

    Those that are held out of training come last.
    """
    held_out = () if plan.held_out is None else plan.held_out.buckets

    def asks() -> Iterator[Asked]:
        for bucket in (*plan.buckets, *held_out):
            for members in bucket.members:
                for place in members.indices:
                    index = members.offset + int(place)
                    yield Asked(dataset.records[index], index, bucket.shape, draw="")

    return asks


def latent_shape(spec: TrainSpec, shape: Shape) -> tuple[int, int, int, int]:
    """`(C, T, H, W)` of the latents of a clip."""
    latent = spec.autoencoder.latent_shape(shape.num_frames, shape.height, shape.width)
    return (spec.autoencoder.latent_channels, *latent)
