"""A generation as a pipeline of diffusers, in a folder: experts with their adapters, encoders, scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.options import RunOptions
from mm_config.schema import Problem, RootSpec, UserError, concerning
from mm_config.specs import (
    Conditioning,
    Expert,
    InferRuntimeSpec,
    InferSpec,
    SamplerSpec,
    SigmaTable,
    Solver,
)
from mm_infer.content import require_pinned
from mm_infer.loading import load_network
from mm_infer.opening import PATH_OF, open_generation, train_missing
from mm_models import part_problems, require_free, staged, write_encoders, write_json, write_network

_PARTS = {
    Expert.SINGLE: "transformer",
    Expert.HIGH_NOISE: "transformer",
    Expert.LOW_NOISE: "transformer_2",
}
_PIPELINES = {
    Conditioning.TEXT: "WanPipeline",
    Conditioning.CLEAN_FIRST_FRAME: "WanPipeline",
    Conditioning.FIRST_FRAME: "WanImageToVideoPipeline",
    Conditioning.FIRST_AND_LAST_FRAME: "WanImageToVideoPipeline",
}
_OWN_TABLE = {
    Solver.UNIPC: SigmaTable.DIFFUSERS,
    Solver.EULER: SigmaTable.DIFFUSERS_EULER,
    Solver.DPMPP_2M: SigmaTable.WAN_OFFICIAL,
}
"""The noise levels that diffusers' scheduler visits when it is told a number of steps."""


def export_pipeline(spec: RootSpec, out: Path, options: RunOptions) -> Iterator[str]:
    """Writes a folder that `WanPipeline.from_pretrained` or `WanImageToVideoPipeline.from_pretrained` opens.

    Weights that are on the disk are written as they are stored; experts with adapters, and such that are
    drawn, in the spec's dtype.

    Args:
        spec: A generation.
        out: A folder that doesn't exist; it gets its name when it is complete.
        options: Where runs and locations are looked up.

    Returns:
        What was written, and what a caller of the pipeline has to say, since no folder can: line by line.

    Raises:
        UserError: The spec is of no generation, or diffusers has no class for a part of it, or weights are
            missing or don't fit; all of it is named. Or the place is taken or can't be written. Nothing is
            left behind.
    """
    if not isinstance(spec, InferSpec):
        raise UserError(Problem("spec", f"is {type(spec).__name__}; a pipeline is made of an InferSpec"))
    require_free(out)
    if problems := list(part_problems(spec, options.locations)):
        raise UserError(problems)
    runtime = InferRuntimeSpec(device="cpu", build_missing=spec.runtime.build_missing)
    exact = attrs.evolve(spec, runtime=runtime, quantization=None)
    generation = train_missing(open_generation(exact, options))
    require_pinned(generation)
    # A file has no place beside weights: what generation adds in each pass is merged as well.
    merged = (attrs.evolve(one, field=attrs.evolve(one.field, merge=True)) for one in generation.adapters)
    generation = attrs.evolve(generation, adapters=tuple(merged))
    with staged(out) as folder:
        parts = write_encoders(spec, options.locations, folder)
        for expert, found in generation.weights.items():
            adapted = any(one.field.expert is expert for one in generation.adapters)
            with concerning(PATH_OF[expert]):
                stored = found if isinstance(found, Path) and not adapted else None
                source = stored or load_network(generation, expert)
                parts[_PARTS[expert]] = write_network(source, spec, folder / _PARTS[expert])
        name, config = _scheduler(spec.sampler)
        (folder / "scheduler").mkdir()
        write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": name, **config})
        write_json(folder / "model_index.json", _index(spec, {**parts, "scheduler": ("diffusers", name)}))
    return _told(spec, out)


def _index(spec: InferSpec, parts: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """What opens the folder."""
    conditioning = spec.model.conditioning
    optional = {"transformer_2": (None, None)}
    if _PIPELINES[conditioning] == "WanImageToVideoPipeline":
        optional |= {"image_encoder": (None, None), "image_processor": (None, None)}
    return {
        "_class_name": _PIPELINES[conditioning],
        "boundary_ratio": spec.boundary,
        "expand_timesteps": conditioning is Conditioning.CLEAN_FIRST_FRAME,
        **{name: list(part) for name, part in sorted({**optional, **parts}.items())},
    }


def _scheduler(sampler: SamplerSpec) -> tuple[str, dict[str, Any]]:
    """The scheduler of a solver and a shift."""
    if sampler.solver is Solver.EULER:
        return "FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 1000, "shift": sampler.shift}
    name = "UniPC" if sampler.solver is Solver.UNIPC else "DPMSolver"
    return f"{name}MultistepScheduler", {
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": sampler.shift,
        "solver_order": 2,
    }


def _told(spec: InferSpec, out: Path) -> Iterator[str]:
    sampler, name = spec.sampler, _PIPELINES[spec.model.conditioning]
    said: dict[str, object] = {
        "height": spec.height,
        "width": spec.width,
        "num_frames": spec.num_frames,
        "num_inference_steps": sampler.steps,
        "guidance_scale": sampler.guidance_high_noise,
    }
    if spec.boundary is not None:
        said["guidance_scale_2"] = sampler.guidance_low_noise
    if spec.negative_prompt:
        said["negative_prompt"] = spec.negative_prompt
    yield f"written   {out}: {name}.from_pretrained({str(out)!r})"
    yield f"to say    {', '.join(f'{field}={value!r}' for field, value in said.items())}"
    if sampler.sigmas is not _OWN_TABLE[sampler.solver]:
        levels = f"spec.sampler.sigmas is {sampler.sigmas.value}"
        yield f"differs   {levels}; diffusers' scheduler visits noise levels of its own for a number of steps"
    fields = attrs.fields_dict(SamplerSpec)
    for option in ("guidance_interval", "guidance_rescale"):
        if (value := getattr(sampler, option)) != fields[option].default:
            lost = "diffusers' pipelines have no such option: it is lost"
            yield f"differs   spec.sampler.{option} is {value}; {lost}"
    for option in ("feature_cache", "quantization", "after_decode"):
        if getattr(spec, option):
            yield f"differs   spec.{option} is set; no pipeline in a folder has such a setting: it is lost"
