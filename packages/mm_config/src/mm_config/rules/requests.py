"""What an inference spec can't make of a request, or doesn't let it choose."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.rules.requested import OF_SAMPLER, SETTINGS, chosen, first_step, resolved_size
from mm_config.rules.sizes import cells, ratio_of
from mm_config.schema.errors import Problem
from mm_config.specs.infer import ImageFit, InferSpec
from mm_config.specs.requests import GenerationRequest, RequestSetting


def own_problems(request: GenerationRequest, spec: InferSpec) -> list[Problem]:
    """What is wrong with what a request chooses, before a spec can be made of it; paths start inside it."""
    found = [*_refused(request, spec), *_size_problems(request, spec)]
    if spec.feature_cache is not None and request.strength is not None:
        advice = "leave it out, or set spec.feature_cache to None"
        found.append(Problem("strength", f"leaves out steps that spec.feature_cache counts from; {advice}"))
    if request.guidance_low_noise is not None and spec.boundary is None:
        found.append(
            Problem(
                "guidance_low_noise",
                f"is {request.guidance_low_noise}, but spec.boundary is None: there is no low-noise expert, "
                "and the single network's own is guidance_high_noise",
            )
        )
    return found


def strength_problems(request: GenerationRequest, made: InferSpec) -> Iterator[Problem]:
    """A strength leaves at least one step of the spec that a request makes."""
    if request.strength is not None and first_step(made, request) == made.sampler.steps:
        steps = made.sampler.steps
        least = f"at least {1 / steps:.3g}"
        yield Problem("strength", f"{request.strength} of {steps} steps is less than one; {least}")


def _refused(request: GenerationRequest, spec: InferSpec) -> Iterator[Problem]:
    """What the spec doesn't let requests choose."""
    allowed = spec.requests_may_set
    for name, value in chosen(request).items():
        if (setting := SETTINGS[name]) not in allowed:
            shown = getattr(value, "value", value)
            listed = ", ".join(one.value for one in allowed) or "nothing"
            field = f"sampler.{name}" if name in OF_SAMPLER else name
            own = (
                ""
                if setting is RequestSetting.SIZE and name not in ("height", "width")
                else f"set spec.{field}"
            )
            advice = " or ".join(filter(None, [f"add {setting.value} to it", own, "leave it out"]))
            yield Problem(name, f"is {shown}, but spec.requests_may_set allows {listed}; {advice}")


def _size_problems(request: GenerationRequest, spec: InferSpec) -> Iterator[Problem]:
    """Height and width, or else a resolution and an aspect ratio, which nothing else decides."""
    names = [name for name in ("resolution", "aspect_ratio") if getattr(request, name) is not None]
    for name in names:
        for side in ("height", "width"):
            if (pixels := getattr(request, side)) is not None:
                yield Problem(name, f"is given beside {side} {pixels}, which it stands in place of; give one")
                return
    if not (text := request.aspect_ratio):
        if text is not None:
            yield Problem("aspect_ratio", "expected width:height in whole numbers such as 16:9, got ''")
        return
    if ratio_of(text) is None:
        yield Problem("aspect_ratio", f"expected width:height in whole numbers such as 16:9, got {text!r}")
        return
    giver = "image" if request.image is not None else "video" if request.video is not None else None
    if giver is not None and spec.image_fit is ImageFit.AREA:
        yield Problem(
            "aspect_ratio",
            f"is {text}, but the {giver} gives its own; leave it out, or set spec.image_fit to crop",
        )
    elif 0 in resolved_size(spec, request):
        rows, columns = cells(spec.model, spec.autoencoder)
        yield Problem(
            "aspect_ratio", f"{text} is too elongated: not one token of {columns}x{rows} pixels fits"
        )


def problem_of(problem: Problem, request: GenerationRequest) -> Problem:
    """A problem of the spec that a request makes, at the field of the request that it comes from."""
    path = problem.path.removeprefix("spec.")
    name = path.removeprefix("sampler.")
    if name in ("height", "width") and getattr(request, name) is None:
        size = "resolution" if request.resolution is not None else "aspect_ratio"
        if getattr(request, size) is not None:
            return Problem(size, f"makes a {name} whose {problem.message}")
    if name in SETTINGS and getattr(request, name) is not None:
        return Problem(name, problem.message)
    return Problem(next(iter(chosen(request))), f"{problem.path} {problem.message}")
