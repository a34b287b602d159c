"""Where a spec's weights lie on this machine; trains them first where that is allowed."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs

from mm_config.options.run_options import RunOptions
from mm_config.running.choosing import AVERAGE, chosen_checkpoint, final_checkpoint
from mm_config.running.runners import run
from mm_config.running.saved import saved_checkpoint
from mm_config.runs.folder import HASH_DIGITS
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.evolve import replace
from mm_config.schema.identity import spec_hash
from mm_config.schema.root import RootSpec
from mm_config.specs.kinds import Weights
from mm_config.specs.weights import RandomWeights, ReleasedWeights, SavedWeights, TrainedBy


def resolve_weights(
    weights: Weights, options: RunOptions, build_missing: bool, path: str = "spec.high_noise"
) -> Path | RandomWeights:
    """The folder or file that holds the weights, or the weights themselves where they are to be drawn.

    The average that a training kept is the folder `average` inside its checkpoint.

    Args:
        weights: What the spec says.
        options: Where runs and locations are looked up.
        build_missing: Whether weights that no finished run has made are trained now.
        path: Canonical path of the field, for error messages.

    Raises:
        UserError: The weights are nowhere; the message says how to get them.
    """
    match weights:
        case RandomWeights():
            return weights
        case ReleasedWeights():
            return _released(weights, options, path)
        case TrainedBy(spec=trained):
            found = chosen_checkpoint(trained, options, path)
            if found is None and not build_missing:
                raise UserError(Problem(path, _missing(trained)))
            return _part_of(found or _build(trained, options), weights, path)
        case SavedWeights():
            return _part_of(saved_checkpoint(weights, options, path), weights, path)
        case _:
            raise AssertionError(f"{path}: {type(weights).__name__} is no kind of weights")


def _part_of(checkpoint: Path, weights: TrainedBy | SavedWeights, path: str) -> Path:
    if not weights.average:
        return checkpoint
    if not (checkpoint / AVERAGE).is_dir():
        raise UserError(
            Problem(f"{path}.average", f"is true, but {checkpoint} holds none: its training kept no average")
        )
    return checkpoint / AVERAGE


def _released(weights: ReleasedWeights, options: RunOptions, path: str) -> Path:
    try:
        found = options.locations.resolve(weights.name, weights.subfolder)
    except UserError as error:
        raise UserError(Problem(path, problem.message) for problem in error.problems) from error
    if not found.exists():
        raise UserError(Problem(path, f"the release {weights.name} has no {found}"))
    return found


def _build(trained: RootSpec, options: RunOptions) -> Path:
    labelled = replace(trained, "name", trained.name or _experiment_of(trained) or "")
    whole = attrs.evolve(options, resume=None, if_needed=False, stop_after=None, requests=None, repeats=None)
    outcome = run(labelled, whole)
    checkpoint = final_checkpoint(outcome.run_dir)
    assert checkpoint is not None, f"{outcome.result_path} names a checkpoint that is not there"
    return checkpoint


def _missing(trained: RootSpec) -> str:
    label = trained.name or _experiment_of(trained)
    digits = spec_hash(trained)[:HASH_DIGITS]
    command = (
        f"run `python experiments/{label}.py`" if label else f"run the experiment with spec_hash {digits}"
    )
    return (
        f"no finished run of {label or digits} (spec_hash {digits}) has its final checkpoint; {command}, "
        "or have it trained first by --spec.runtime.build_missing"
    )


def _experiment_of(trained: RootSpec) -> str | None:
    """The name of the loaded experiment whose SPEC this is."""
    for name, module in sys.modules.items():
        if name.startswith("experiments.") and getattr(module, "SPEC", None) == trained:
            return name.rpartition(".")[2]
    return None
