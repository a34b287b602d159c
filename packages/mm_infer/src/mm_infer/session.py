"""A generation that its ranks have opened together: what it is made of, and the runs that record it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mm_config.content import Input
from mm_config.options import RunOptions
from mm_config.running import checked_inputs, taken_from
from mm_config.runs import Run, attach, check_opens, open_run
from mm_config.schema import Problem, UserError, exact_hash, gathering, spec_hash
from mm_config.specs import Expert, GenerationRequest, InferSpec, RandomWeights, TrainedBy
from mm_infer import scoring
from mm_infer.content import inputs_of
from mm_infer.layout import Layout
from mm_infer.loading import load_pipeline
from mm_infer.opening import Generation, expert_weights, open_generation, train_missing, with_residency
from mm_infer.pipeline import Pipeline
from mm_models import device_names
from mm_models.ranks import Ranks


def opened_by_ranks(
    spec: InferSpec, options: RunOptions, requests: Sequence[GenerationRequest] | None, layout: Layout
) -> Generation:
    """A generation with all its weights, whose runs can be opened and whose videos can be measured.

    Args:
        spec: What is carried out.
        options: Where runs and locations are looked up.
        requests: What is made; None where that is not known yet.
        layout: The ranks, all of which make the call.

    Raises:
        UserError: As `open_generation`; or a run can't be opened, or the spec's own videos can't be measured.
    """

    def open_here() -> Generation:
        problems: list[Problem] = []
        generation: Generation | None = None
        with gathering(problems):
            generation = with_residency(open_generation(spec, options, requests, layout))
        with gathering(problems):
            if requests is not None and options.requests is None:
                scoring.check_scorable(spec.samples)
        if problems or generation is None:
            raise UserError(problems)
        check_opens(spec, options)
        return train_missing(generation)

    return layout.ranks.together(open_here)


def hashed(generation: Generation) -> dict[str, Input]:
    """What the first rank found that the videos are made of; nothing on the others."""
    found: dict[str, Input] = {}
    generation.layout.ranks.on_first(
        lambda: found.update(checked_inputs(inputs_of(generation), generation.options))
    )
    return found


def run_of(generation: Generation, inputs: Mapping[str, Input]) -> Run:
    """A run of `generation.options`, whose folder the first rank makes and the others read."""
    ranks = generation.layout.ranks

    def open_here() -> Run:
        devices, ops = device_names(generation.device), generation.ops.names()
        return open_run(generation.spec, generation.options, devices, ops, inputs)

    return on_every_rank(ranks, ranks.together(lambda: open_here() if ranks.is_first else None))


def on_every_rank(ranks: Ranks, run: Run | None) -> Run:
    """The first rank's run; the others read its folder."""
    path = ranks.share(run and str(run.path.absolute()))
    return ranks.together(lambda: run or attach(Path(path)))


def loaded_by_ranks(generation: Generation) -> Pipeline:
    """What makes the videos, on every rank its part."""
    return generation.layout.ranks.together(lambda: load_pipeline(generation))


def head_of_result(generation: Generation) -> dict[str, Any]:
    """What a result says of the spec and its experts."""
    spec = generation.spec
    experts = {
        expert.value: _described(spec, expert, source) for expert, source in generation.weights.items()
    }
    return {
        "kind": "infer",
        "spec_hash": spec_hash(spec),
        "exact_hash": exact_hash(spec),
        "experts": experts,
    }


def _described(spec: InferSpec, expert: Expert, source: Path | RandomWeights) -> dict[str, Any]:
    """Where an expert came from: its training's hash and run folder, or its checkpoint, or its seed."""
    if isinstance(source, RandomWeights):
        return {"seed": source.seed}
    weights = expert_weights(spec)[expert]
    if isinstance(weights, TrainedBy):
        folder = taken_from(source)["run_dir"]
        return {"spec_hash": spec_hash(weights.spec), "run_dir": folder, "weights": str(source.absolute())}
    return {"weights": str(source.absolute())}
