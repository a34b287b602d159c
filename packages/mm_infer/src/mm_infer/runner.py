"""Runs an inference spec: weights, videos and, of the spec's own videos, contact sheet and score."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mm_config.console import say
from mm_config.options import RunOptions, RunOutcome
from mm_config.runs import Run, recorded
from mm_config.schema import Problem, UserError, spec_hash
from mm_config.specs import InferSpec
from mm_config.stored import write_json
from mm_data import write_contact_sheet
from mm_infer import scoring
from mm_infer.layout import laid_out
from mm_infer.making import make_files, timed
from mm_infer.pipeline import Video
from mm_infer.report import print_report
from mm_infer.session import hashed, head_of_result, loaded_by_ranks, opened_by_ranks, run_of
from mm_infer.wanted import videos_in_result, wanted_of
from mm_infer.watching import UNWATCHED, Watch
from mm_infer.writing import strips_of
from mm_models import peak_gib
from mm_models.ops import described
from mm_models.parallel import over_ranks


def run(spec: InferSpec, options: RunOptions) -> RunOutcome:
    """Makes the videos of the spec, or of `options.requests`; the runner of `infer` specs.

    Raises:
        UserError: As `make`.
    """
    return make(spec, options)


def make(
    spec: InferSpec,
    options: RunOptions,
    paths: Sequence[Path] | None = None,
    watch: Watch = UNWATCHED,
) -> RunOutcome:
    """Makes the spec's videos and measures them, or makes those of `options.requests`; writes `result.json`.

    Experts that a finished run has made are taken as they are, missing ones are trained first where the
    spec allows it.

    Args:
        spec: What is carried out.
        options: How.
        paths: The file of each video; None puts them into the run folder.
        watch: What looks on; each stage's seconds are in the result's `timings` anyway.

    Raises:
        UserError: The spec or its prompts can't be run, weights are missing, or `--resume` is given:
            generation is the short part, so it starts anew.
    """
    started = time.perf_counter()
    if options.resume is not None:
        raise UserError(
            Problem(
                options.name_of("resume"),
                "a generation starts anew; its trained experts are reused as they are",
            )
        )
    own = options.requests is None
    requests = spec.samples.requests if options.requests is None else options.requests
    with laid_out(spec) as layout:
        ranks, timings = layout.ranks, dict[str, float]()
        with timed(timings, "weights"):
            generation = opened_by_ranks(spec, options, requests, layout)
        place = generation.device
        say(f"{place} with {described(over_ranks(generation.ops, layout.context))}")
        with timed(timings, "hash"):
            inputs = hashed(generation)
        opened, head = run_of(generation, inputs), head_of_result(generation)
        with recorded(opened) if ranks.is_first else nullcontext(), ranks.naming_who_is_missing():
            with timed(timings, "load"):
                pipeline = loaded_by_ranks(generation)
            del generation  # Its adapters are in the networks now.
            wanted = wanted_of(requests, opened, paths)
            digests, videos = make_files(pipeline, wanted, timings, watch, whole=own)
            measured = ranks.on_first(lambda: _measured(spec, videos, opened, timings)) if own else {}
            result = {
                **head,
                "videos": videos_in_result(wanted, digests),
                **measured,
                "timings": timings,
                "peak_gib": peak_gib(place),
                "seconds": time.perf_counter() - started,
            }
            ranks.on_first(lambda: str(opened.finish(result)))
        if own:
            print_report(spec, options, opened.path, result)
        return RunOutcome(run_dir=opened.path.absolute(), result_path=opened.result_path.absolute())


def _measured(
    spec: InferSpec, videos: Sequence[Video], opened: Run, timings: dict[str, float]
) -> dict[str, Any]:
    score = None
    if spec.samples.scorer is not None:
        with timed(timings, "score"):
            score = scoring.score(spec.samples.scorer, videos, spec.samples.asked_for)
        write_json(opened.path / "measurements.json", {"videos": score.measurements})
    sheet = opened.path.absolute() / "contact_sheet.png"
    write_contact_sheet(
        sheet, strips_of(videos), title=spec.name or "videos", subtitle=_subtitle(spec, score)
    )
    return {"score": dict(score.shares) if score else None, "contact_sheet": str(sheet)}


def _subtitle(spec: InferSpec, score: scoring.Score | None) -> str:
    sampler = spec.sampler
    how = f"{sampler.solver.value}, {sampler.steps} steps, shift {sampler.shift:g}"
    shares = [f"{name} {share:.0%}" for name, share in score.shares.items()] if score else []
    return "    ".join([f"spec {spec_hash(spec)[:12]}", how, *shares])
