"""`mm generate --decode`: the video of latents that a run has kept. Nothing but the autoencoder is loaded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

import mm_models
from mm_config import diff, rules
from mm_config.content import file_input
from mm_config.options import RunOptions
from mm_config.runs import digests_of, open_run, recorded
from mm_config.schema import SEMANTIC, Problem, UserError, concerning, exact_hash, spec_hash
from mm_config.specs import GenerationRequest, InferSpec
from mm_infer.carried_out import CARRIED_OUT
from mm_infer.latents import read_latents
from mm_infer.stages import finished, require_stages
from mm_infer.writing import write_frames
from mm_models import device, device_names, encoder_inputs, peak_gib, require_releases

AUTOENCODER = "spec.autoencoder"
_DECODING = (AUTOENCODER, "spec.fps", "spec.after_decode", "spec.name")
"""Semantic fields that matter after denoising."""


def decode_file(
    path: Path,
    request: GenerationRequest,
    denoised_by: InferSpec,
    spec: InferSpec,
    options: RunOptions,
    out: Path,
) -> Path:
    """Decodes a file of latents and writes the video, in a run of its own, which records both.

    Args:
        path: The latents.
        request: What they were asked to become.
        denoised_by: The spec that they were denoised by.
        spec: The same but for how they are decoded.
        options: Where runs and releases are looked up.
        out: The mp4.

    Returns:
        The run folder.

    Raises:
        UserError: The file is damaged or doesn't fit, the spec can't be carried out, or it says something
            else of the denoising, which is over.
    """
    started = time.perf_counter()
    rules.check(spec)
    problems = [*CARRIED_OUT.refusals(spec), *_too_late(denoised_by, spec)]
    if problems:
        raise UserError(problems)
    named = {AUTOENCODER: spec.autoencoder}
    require_stages(spec)
    require_releases(named, options.locations)
    latents, place = read_latents(path, spec.autoencoder.latent_channels), device.pick(spec.runtime.device)
    with concerning("requests.0.latents"):
        inputs = encoder_inputs(named, options) | {"requests.0.latents": file_input(path)}
    with recorded(open_run(spec, options, device_names(place), {}, inputs)) as opened:
        autoencoder = mm_models.build_autoencoder(spec.autoencoder, device=place, locations=options.locations)
        if spec.runtime.compile_autoencoder:
            mm_models.compile_autoencoder(autoencoder, spec.runtime.compile)
        with torch.inference_mode(), mm_models.deterministic(place, spec.runtime.deterministic):
            slices = mm_models.decoded_slices(autoencoder, latents[None].to(place))
            frames = finished(spec, slices)
            write_frames(out.absolute(), frames, request, spec, opened)
        video = {
            "name": out.name,
            "prompt": request.prompt,
            "seed": request.seed,
            "path": str(out.absolute()),
        }
        result = {
            "kind": "infer",
            "spec_hash": spec_hash(spec),
            "exact_hash": exact_hash(spec),
            "experts": {},
            "videos": [video | digests_of(out) | {"latents": str(path.absolute())}],
            "peak_gib": peak_gib(place),
            "seconds": time.perf_counter() - started,
        }
        opened.finish(result)
    return opened.path


def _too_late(denoised_by: InferSpec, spec: InferSpec) -> Iterator[Problem]:
    for change in diff(denoised_by, spec):
        if change.role is SEMANTIC and not change.path.startswith(_DECODING):
            yield Problem(change.path, "can't be changed with --decode: the latents are denoised already")
