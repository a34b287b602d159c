"""Rules on noise levels, the sampler and its guidance, and on ranks that share weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from mm_config.rules.requested import spec_of
from mm_config.rules.wording import idle_problems
from mm_config.schema.errors import Problem, prefixed
from mm_config.specs.diffusion import (
    NUM_TRAIN_TIMESTEPS,
    Expert,
    FlowMatchingSpec,
    SamplerSpec,
    SigmaTable,
    Solver,
    TimestepSampling,
)
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.parallel import CompileSpec
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.serving import GuidanceMode


def grid_problems(diffusion: FlowMatchingSpec) -> Iterator[Problem]:
    """The grid falls, each expert has a point of it, and no setting is given that its sampling leaves out."""
    if diffusion.sampling is not TimestepSampling.LOGIT_NORMAL:
        yield from idle_problems(diffusion, ["logit_mean", "logit_std"], "sampling = logit_normal")
    if diffusion.sampling is not TimestepSampling.MODE:
        yield from idle_problems(diffusion, ["mode_scale"], "sampling = mode")
    if diffusion.sigma_min >= diffusion.sigma_max:
        yield Problem("sigma_min", f"is {diffusion.sigma_min}, not below sigma_max {diffusion.sigma_max}")
        return
    if diffusion.boundary is None:
        return
    largest, smallest = _grid_ends(diffusion)
    shown = f"the grid of {diffusion.num_train_timesteps} points with shift {diffusion.shift}"
    if diffusion.boundary <= smallest:
        yield Problem(
            "boundary",
            f"{diffusion.boundary} leaves no noise level for the low-noise expert; {shown} ends at "
            f"{smallest:.6g}",
        )
    if diffusion.boundary > largest:
        yield Problem(
            "boundary",
            f"{diffusion.boundary} leaves no noise level for the high-noise expert; {shown} begins at "
            f"{largest:.6g}",
        )


def _grid_ends(diffusion: FlowMatchingSpec) -> tuple[float, float]:
    """The largest and the smallest noise level of the training grid, shifted."""
    most, least, count = diffusion.sigma_max, diffusion.sigma_min, diffusion.num_train_timesteps
    gaps = count if diffusion.drop_last else max(count - 1, 1)
    last = most - (most - least) * (count - 1) / gaps
    # 1 + (s - 1) u, written so that it stays above 0 for every shift.
    largest, smallest = (diffusion.shift * u / (1 - u + diffusion.shift * u) for u in (most, last))
    return largest, smallest


def expert_problems(expert: Expert, boundary: float | None, path: str) -> Iterator[Problem]:
    """An expert of two needs a boundary, a single network has none."""
    if expert is Expert.SINGLE and boundary is not None:
        yield Problem(
            "expert",
            f"is single, but {path}.diffusion.boundary is {boundary}; choose high_noise or low_noise, "
            "or set the boundary to None",
        )
    if expert is not Expert.SINGLE and boundary is None:
        yield Problem(
            "expert",
            f"is {expert.value}, one of two, which needs {path}.diffusion.boundary (Wan2.2 T2V: 0.875, I2V: "
            "0.9); choose single for a single network, or give the boundary",
        )


def sampler_problems(sampler: SamplerSpec) -> Iterator[Problem]:
    """Listed timesteps fall and are as many as the steps; an interval of guidance begins before it ends."""
    least, most = sampler.guidance_interval
    if least >= most:
        yield Problem("guidance_interval", f"begins at {least}, which is not below its end {most}")
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


def guidance_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    """Distilled networks have their guidance built in and walk their listed timesteps by Euler's method; two
    ranks for guidance need some.

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
        if sampler.sigmas is SigmaTable.LISTED and sampler.solver is not Solver.EULER:
            yield Problem(
                "sampler.solver",
                f"is {sampler.solver.value}, but {path}.distilled is True: listed timesteps are those "
                "that the weights were distilled for, by Euler's method; choose euler",
            )
    if spec.runtime.guidance is GuidanceMode.PARALLEL and max(used.values()) == 1:
        yield Problem(
            "runtime.guidance",
            f"is parallel, but no guidance of {path}.sampler is above 1: the second rank has nothing to do; "
            "choose batched",
        )


def guidance_by_step(spec: InferSpec) -> list[tuple[Expert, float]]:
    """The expert of each denoising step, high noise at and above the boundary, and its guidance, which is 1
    outside of the interval of noise levels.

    A table whose timesteps are not listed yet counts as one of the high-noise expert alone.
    """
    sampler = spec.sampler
    high = Expert.SINGLE if spec.boundary is None else Expert.HIGH_NOISE
    levels = sampler.noise_levels() or [1.0] * sampler.steps
    told = sampler.told_timesteps() or [float(NUM_TRAIN_TIMESTEPS)] * sampler.steps
    threshold = (spec.boundary or 0) * NUM_TRAIN_TIMESTEPS
    experts = [high if timestep >= threshold else Expert.LOW_NOISE for timestep in told]
    return [
        (expert, sampler.guidance_at(level, expert)) for level, expert in zip(levels, experts, strict=True)
    ]


def idle_settings(spec: InferSpec, requests: Sequence[GenerationRequest] | None = None) -> Iterator[Problem]:
    """What a generation says in vain: it harms nothing, so whoever starts one says it and goes on.

    Args:
        spec: One that breaks no rule.
        requests: What is going to be made; None where it is not known yet.
    """
    sampler, steps = spec.sampler, guidance_by_step(spec)
    low = sampler.guidance_low_noise
    if spec.boundary is None and low not in (sampler.guidance_high_noise, SamplerSpec().guidance_low_noise):
        yield Problem(
            "spec.sampler.guidance_low_noise",
            f"is {low}, which a single network doesn't use; its own is spec.sampler.guidance_high_noise",
        )
    names = {Expert.HIGH_NOISE: "high_noise", Expert.LOW_NOISE: "low_noise"}
    for expert, name in names.items() if spec.boundary is not None else ():
        if all(used is not expert for used, _ in steps):
            side = "below" if expert is Expert.HIGH_NOISE else "at or above"
            yield Problem(
                f"spec.{name}",
                f"is used by no step: all {len(steps)} begin {side} spec.boundary {spec.boundary}, so its "
                f"weights, its adapters and spec.sampler.guidance_{name} change nothing",
            )
    if spec.model.conditioning is Conditioning.TEXT:
        of_video = () if any(one.video is not None for one in requests or ()) else ("image_fit",)
        user = "a network that is given frames"
        yield from prefixed(idle_problems(spec, [*of_video, "image_background"], user), "spec")
    yield from prefixed(_idle_guidance(spec, steps), "spec.sampler")
    if not (compiled := spec.runtime.compile).enabled:
        names = [one.name for one in attrs.fields(CompileSpec) if one.name != "enabled"]
        yield from prefixed(idle_problems(compiled, names, "enabled True"), "spec.runtime.compile")
    takers = [one for one in requests or () if not _has_negative_prompt(one)]
    readers = [spec] if requests is None else [spec_of(spec, one) for one in takers]
    if spec.negative_prompt and readers and not any(_is_guided(guidance_by_step(one)) for one in readers):
        yield Problem("spec.negative_prompt", _NEVER_READ)
    yield from idle_requests(spec, requests or ())


def _idle_guidance(spec: InferSpec, steps: Sequence[tuple[Expert, float]]) -> Iterator[Problem]:
    """Settings of guidance where none is at work; paths start inside the sampler."""
    sampler = spec.sampler
    names = {Expert.LOW_NOISE: "guidance_low_noise"}
    least, most = sampler.guidance_interval
    unused = f"no step has a noise level from {least} to {most}"
    for expert in dict.fromkeys(expert for expert, _ in steps):
        name = names.get(expert, "guidance_high_noise")
        own = [guidance for used, guidance in steps if used is expert]
        if getattr(sampler, name) > 1 and max(own) == 1:
            yield Problem(name, f"is {getattr(sampler, name)}, but of this expert {unused}")
    if not _is_guided(steps):
        yield from idle_problems(sampler, ["guidance_interval", "guidance_rescale"], "a step with guidance")


def idle_requests(spec: InferSpec, requests: Iterable[GenerationRequest]) -> Iterator[Problem]:
    """The same of requests alone."""
    for index, request in enumerate(requests):
        if request.negative_prompt and not _is_guided(guidance_by_step(spec_of(spec, request))):
            yield Problem(f"request {index}.negative_prompt", _NEVER_READ)


_NEVER_READ = "is never read: no step has a guidance above 1"


def _is_guided(steps: Iterable[tuple[Expert, float]]) -> bool:
    return any(guidance > 1 for _, guidance in steps)


def _has_negative_prompt(request: GenerationRequest) -> bool:
    own = request.negative_prompt
    return bool(own) or (own is not None and request.negative_prompt_may_be_empty)


def sharing_problems(spec: InferSpec) -> Iterator[Problem]:
    """Weights are shared where several ranks hold the same."""
    parallel = spec.runtime.parallel
    branches = 2 if spec.runtime.guidance is GuidanceMode.PARALLEL else 1
    holders = parallel.ulysses * parallel.ring * branches
    if parallel.fsdp and holders == 1:
        yield Problem(
            "runtime.parallel.fsdp",
            "shares one copy of the weights among the ranks that make one video, but no two hold the same "
            "part of them; raise ulysses or ring, or turn this off",
        )
