"""Rules on the sampler, and on what makes generation faster with another result."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.rules.wording import idle_problems
from mm_config.schema.errors import Problem
from mm_config.specs.diffusion import SamplerSpec, SigmaTable, Solver
from mm_config.specs.infer import InferSpec
from mm_config.specs.serving import (
    GuidanceMode,
    InferRuntimeSpec,
    Residency,
    SparseAttentionSpec,
    SparsePattern,
)


def sampler_problems(sampler: SamplerSpec) -> Iterator[Problem]:
    """Listed timesteps fall, are as many as the steps, and are walked by Euler's method."""
    if sampler.sigmas is not SigmaTable.LISTED:
        yield from idle_problems(sampler, ["timesteps"], "sigmas = listed")
        return
    listed = sampler.timesteps
    if not listed:
        yield Problem("timesteps", "is empty, but sigmas is listed; give them, such as 1000 750 500 250")
    elif len(listed) != sampler.steps:
        yield Problem("steps", f"is {sampler.steps}, but timesteps lists {len(listed)}; make them equal")
    for index in range(1, len(listed)):
        if listed[index] >= listed[index - 1]:
            yield Problem(
                f"timesteps.{index}",
                f"is {listed[index]}, not below {listed[index - 1]} before it: noise must fall",
            )
    if sampler.solver is not Solver.EULER:
        yield Problem(
            "solver",
            f"is {sampler.solver.value}, but listed timesteps are those of networks distilled for Euler's "
            "method; choose euler",
        )


def guidance_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    """Distilled networks have their guidance built in; two ranks for guidance need some.

    Args:
        spec: The inference spec.
        path: Where it stands, for messages that name a second field.
    """
    sampler = spec.sampler
    used = {"guidance_high_noise": sampler.guidance_high_noise}
    if spec.boundary is not None:
        used["guidance_low_noise"] = sampler.guidance_low_noise
    if spec.distilled:
        for name, guidance in used.items():
            if guidance > 1:
                yield Problem(
                    f"sampler.{name}",
                    f"is {guidance}, but {path}.distilled is True: the weights have their guidance built in; "
                    "set it to 1.0",
                )
    if spec.runtime.guidance is GuidanceMode.PARALLEL and max(used.values()) == 1:
        yield Problem(
            "runtime.guidance",
            f"is parallel, but no guidance of {path}.sampler is above 1: the second rank has nothing to do; "
            "choose batched",
        )


def shortcut_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    """Sparse attention begins before the end; weights and tiles are shared where there are several ranks."""
    sparse, steps, layers = spec.sparse_attention, spec.sampler.steps, spec.model.num_layers
    if sparse is not None and sparse.dense_steps > steps:
        yield Problem(
            "sparse_attention.dense_steps", f"is {sparse.dense_steps}, above {path}.sampler.steps {steps}"
        )
    if sparse is not None and sparse.dense_layers > layers:
        yield Problem(
            "sparse_attention.dense_layers",
            f"is {sparse.dense_layers}, above {path}.model.num_layers {layers}",
        )
    yield from _sharing_problems(spec, path)


def _sharing_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    parallel = spec.runtime.parallel
    branches = 2 if spec.runtime.guidance is GuidanceMode.PARALLEL else 1
    holders = parallel.ulysses * parallel.ring * branches
    if parallel.fsdp and holders == 1:
        yield Problem(
            "runtime.parallel.fsdp",
            "shares one copy of the weights among the ranks that make one video, but no two hold the same "
            "part of them; raise ulysses or ring, or turn this off",
        )
    if not parallel.autoencoder:
        return
    if holders * parallel.tensor == 1:
        yield Problem(
            "runtime.parallel.autoencoder",
            "shares tiles among the ranks that make one video, but there is one; raise ulysses or ring, or "
            "turn this off",
        )
    elif not getattr(spec.autoencoder, "tiling", False):
        yield Problem(
            "runtime.parallel.autoencoder",
            f"shares tiles among ranks, but {path}.autoencoder makes none; turn its tiling on, or this off",
        )


def sparse_problems(sparse: SparseAttentionSpec) -> Iterator[Problem]:
    """Each pattern has a setting of its own."""
    if sparse.pattern is not SparsePattern.RADIAL:
        yield from idle_problems(sparse, ["decay_factor"], "pattern = radial")
    if sparse.pattern is not SparsePattern.LOCAL:
        yield from idle_problems(sparse, ["window"], "pattern = local")


def residency_problems(runtime: InferRuntimeSpec) -> Iterator[Problem]:
    """Only layerwise residency brings single blocks."""
    residency = runtime.residency
    if Residency.LAYERWISE not in (residency.experts, residency.encoders):
        for problem in idle_problems(residency, ["share", "prefetch"], "layerwise residency"):
            yield Problem(f"residency.{problem.path}", problem.message)
