"""Runs an inference spec: weights, videos and, of the spec's own videos, contact sheet and score."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch

from mm_config.console import say
from mm_config.content import Input
from mm_config.options import RunOptions, RunOutcome
from mm_config.running import checked_inputs, taken_from
from mm_config.runs import Run, attach, check_opens, digests_of, open_run, recorded
from mm_config.schema import Problem, UserError, exact_hash, gathering, spec_hash
from mm_config.specs import Expert, GenerationRequest, InferSpec, RandomWeights, TrainedBy
from mm_config.stored import write_json
from mm_data import write_contact_sheet
from mm_infer import scoring
from mm_infer.content import inputs_of
from mm_infer.keeping import drain, drained, keeping_previews, naming
from mm_infer.latents import FOLDER, Denoised, write_latents
from mm_infer.latents import SUFFIX as LATENTS_SUFFIX
from mm_infer.layout import Layout, laid_out
from mm_infer.loading import load_pipeline
from mm_infer.naming import file_names
from mm_infer.opening import Generation, expert_weights, open_generation, train_missing, with_residency
from mm_infer.pipeline import Pipeline, Video, denoised_turns, frames_of, videos_on_all_ranks
from mm_infer.report import print_report
from mm_infer.requests import Inputs
from mm_infer.watching import UNWATCHED, Watch
from mm_infer.writing import strips_of, write_frames
from mm_models import device_names, peak_gib
from mm_models.ops import described
from mm_models.parallel import over_ranks
from mm_models.ranks import Ranks


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
        with _timed(timings, "weights"):
            generation = ranks.together(lambda: _opened(spec, options, requests, layout))
        place, ops, weights = generation.device, generation.ops, generation.weights
        say(f"{place} with {described(over_ranks(ops, layout.context))}")
        with _timed(timings, "hash"):
            inputs = _hashed(generation, ranks)
        opened = _run_of(generation, inputs, ranks)
        with recorded(opened) if ranks.is_first else nullcontext(), ranks.naming_who_is_missing():
            with _timed(timings, "load"):
                pipeline = _loaded(generation, ranks)
            del generation  # Its adapters are in the networks now.
            made = _write(pipeline, requests, opened, timings, paths, watch, measured=own)
            result = {
                "kind": "infer",
                "spec_hash": spec_hash(spec),
                "exact_hash": exact_hash(spec),
                "experts": {
                    expert.value: _described(spec, expert, source) for expert, source in weights.items()
                },
                **made,
                "timings": timings,
                "peak_gib": peak_gib(place),
                "seconds": time.perf_counter() - started,
            }
            ranks.on_first(lambda: str(opened.finish(result)))
        if own:
            print_report(spec, options, opened.path, result)
        return RunOutcome(run_dir=opened.path.absolute(), result_path=opened.result_path.absolute())


def _opened(
    spec: InferSpec, options: RunOptions, requests: Sequence[GenerationRequest], layout: Layout
) -> Generation:
    """A generation with all its weights, whose run can be opened and whose videos can be measured."""
    problems: list[Problem] = []
    generation: Generation | None = None
    with gathering(problems):
        generation = with_residency(open_generation(spec, options, requests, layout))
    with gathering(problems):
        if options.requests is None:
            scoring.check_scorable(spec.samples)
    if problems or generation is None:
        raise UserError(problems)
    check_opens(spec, options)
    return train_missing(generation)


def _hashed(generation: Generation, ranks: Ranks) -> dict[str, Input]:
    """What the first rank found that the videos are made of; nothing on the others."""
    found: dict[str, Input] = {}
    ranks.on_first(lambda: found.update(checked_inputs(inputs_of(generation), generation.options)))
    return found


def _run_of(generation: Generation, inputs: Mapping[str, Input], ranks: Ranks) -> Run:
    """The run, whose folder the first rank makes and the others read."""

    def open_here() -> Run:
        devices, ops = device_names(generation.device), generation.ops.names()
        return open_run(generation.spec, generation.options, devices, ops, inputs)

    run = ranks.together(lambda: open_here() if ranks.is_first else None)
    path = ranks.share(run and str(run.path.absolute()))
    return ranks.together(lambda: run or attach(Path(path)))


def _loaded(generation: Generation, ranks: Ranks) -> Pipeline:
    return ranks.together(lambda: load_pipeline(generation))


def _write(
    pipeline: Pipeline,
    requests: Sequence[GenerationRequest],
    opened: Run,
    timings: dict[str, float],
    paths: Sequence[Path] | None,
    watch: Watch,
    *,
    measured: bool,
) -> dict[str, Any]:
    """Makes, keeps and measures the videos; returns their part of the result. Paths are absolute.

    Each group of ranks writes its own; what is measured is measured by the first rank.
    """
    spec, names, ranks = pipeline.spec, file_names(requests), pipeline.layout.ranks
    files = [
        (opened.samples_dir / name if paths is None else paths[index]).absolute()
        for index, name in enumerate(names)
    ]
    kept = [(opened.path / FOLDER / name).with_suffix(LATENTS_SUFFIX).absolute() for name in names]
    inputs, videos, told = Inputs(tuple(requests)), dict[int, Video](), dict[int, dict[str, Any]]()

    def keep(turn: Mapping[int, Denoised]) -> dict[int, Video]:
        if not pipeline.layout.leads:
            for one in turn.values() if pipeline.decodes else ():
                drain(frames_of(pipeline, one.latents))
            return {}
        for number, one in turn.items():
            write_latents(kept[number], one, spec, opened)
        made: dict[int, Video] = {}
        for number, one in turn.items():
            frames = frames_of(pipeline, one.latents)
            with naming(kept[number]), _timed(timings, "decode"), drained(frames) as parts:
                if measured or watch.on_frames is not None:
                    whole = torch.cat([*parts])
                    parts = iter([whole])
                    if watch.on_frames is not None:
                        watch.on_frames(whole)
                    if measured:
                        made[number] = Video(one.request, whole)
                write_frames(files[number], parts, one.request, spec, opened)
            told[number] = digests_of(files[number]) | {"batch": min(turn)}
        return made

    with _timed(timings, "generate"):
        watch = attrs.evolve(
            watch,
            timed=partial(_timed, timings),
            on_preview=keeping_previews(pipeline, requests, names, opened),
        )
        for turn in denoised_turns(pipeline, inputs, watch):
            made = ranks.together(lambda turn=turn: keep(turn))
            every = videos_on_all_ranks(pipeline, inputs, made) if measured else {}
            videos |= every if ranks.is_first else {}
    found = {int(number): one for part in ranks.gather(told) for number, one in part.items()}
    result = {
        "videos": [
            {"name": name, "prompt": request.prompt, "seed": request.seed, "path": str(path)}
            | found[number]
            | {"latents": str(latents)}
            for number, (name, request, path, latents) in enumerate(
                zip(names, requests, files, kept, strict=True)
            )
        ]
    }
    if not measured:
        return result
    in_order = [videos[number] for number in sorted(videos)]
    return {**result, **ranks.on_first(lambda: _measured(spec, in_order, opened, timings))}


def _measured(
    spec: InferSpec, videos: Sequence[Video], opened: Run, timings: dict[str, float]
) -> dict[str, Any]:
    score = None
    if spec.samples.scorer is not None:
        with _timed(timings, "score"):
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


def _described(spec: InferSpec, expert: Expert, source: Path | RandomWeights) -> dict[str, Any]:
    """Where an expert came from: its training's hash and run folder, or its checkpoint, or its seed."""
    if isinstance(source, RandomWeights):
        return {"seed": source.seed}
    weights = expert_weights(spec)[expert]
    if isinstance(weights, TrainedBy):
        folder = taken_from(source)["run_dir"]
        return {"spec_hash": spec_hash(weights.spec), "run_dir": folder, "weights": str(source.absolute())}
    return {"weights": str(source.absolute())}


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the seconds that a stage took."""
    started = time.perf_counter()
    yield
    timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - started
