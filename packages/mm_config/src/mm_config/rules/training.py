"""Rules between the fields of a training spec."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.errors import Problem, prefixed
from mm_config.patterns import matches, module_names, nearest
from mm_config.rules.clips import dataset_problems, size_problems
from mm_config.rules.encoders import joint_problems
from mm_config.rules.experts import expert_problems, grid_problems, trained_problems
from mm_config.rules.wording import either, nearest_divisors, nearest_multiples
from mm_config.specs.train import TrainSpec


def train_problems(spec: TrainSpec, path: str) -> Iterator[Problem]:
    """Everything that does not depend on the number of ranks; paths start inside the spec.

    Args:
        spec: The training spec.
        path: Where it stands, for messages that name a second field.
    """
    data = spec.data
    yield from joint_problems(spec, path)
    size = (data.num_frames, data.height, data.width)
    yield from prefixed(size_problems(size, spec.model, spec.autoencoder), "data")
    yield from prefixed(dataset_problems(data), "data")
    yield from prefixed(grid_problems(spec.diffusion), "diffusion")
    yield from expert_problems(spec.expert, spec.diffusion.boundary, path)
    yield from trained_problems(spec.start_from, "start_from", {"model": ("model", spec.model)}, path)
    yield from _pattern_problems(spec)


def batch_problems(spec: TrainSpec, world_size: int | None) -> Iterator[Problem]:
    """The global batch must divide over ranks, and a rank's share into micro-batches."""
    batch, ranks = spec.data.batch_size, world_size or 1
    if batch % ranks:
        legal = nearest_multiples(batch, ranks)
        yield Problem(
            "data.batch_size", f"{batch} clips do not divide over {ranks} ranks; nearest: {either(legal)}"
        )
        return
    share, micro = batch // ranks, spec.runtime.micro_batch_size
    if micro is not None and share % micro:
        legal = nearest_divisors(share, micro)
        yield Problem(
            "runtime.micro_batch_size",
            f"{micro} does not divide a rank's {share} clips; nearest: {either(legal)}",
        )


def _pattern_problems(spec: TrainSpec) -> Iterator[Problem]:
    names = module_names(spec.model)
    for index, pattern in enumerate(spec.fsdp.wrap):
        if not any(matches(name, pattern) for name in names):
            near = ", ".join(repr(name) for name in nearest(pattern, names))
            yield Problem(f"fsdp.wrap.{index}", f"{pattern!r} matches no module; nearest: {near}")
