"""What a generation is made of: the weights of its experts, adapters and encoders, and given files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mm_config.content import Input, file_input
from mm_config.options import RunOptions
from mm_config.running import resolve_weights
from mm_config.schema import Problem, UserError, concerning, gathering, leaves
from mm_config.specs import InferSpec, RandomWeights, Weights
from mm_infer.adapters import adapter_fields
from mm_infer.images import given_files
from mm_infer.opening import PATH_OF, Generation, encoders_of, expert_weights
from mm_models import encoder_inputs, weights_input


def inputs(spec: InferSpec, options: RunOptions) -> dict[str, Input]:
    """What a run of the spec would be made of here, by canonical path; nothing is trained.

    Raises:
        UserError: Something that the spec names is not here.
    """
    named: dict[str, Weights] = {PATH_OF[expert]: one for expert, one in expert_weights(spec).items()}
    named |= {field.path: field.weights for field in adapter_fields(spec)}
    found = {path: resolve_weights(one, options, False, path) for path, one in named.items()}
    return _inputs_of(spec, options, named, found)


def inputs_of(generation: Generation) -> dict[str, Input]:
    """What an opened generation is made of, by canonical path; nothing of it is left to train.

    Requests beside the spec are not among it: a run that stores them adds them.

    Raises:
        UserError: A digest that the spec asks for is another, or a given file can't be read.
    """
    spec = generation.spec
    named: dict[str, Weights] = {PATH_OF[expert]: one for expert, one in expert_weights(spec).items()}
    found: dict[str, Path | RandomWeights] = {
        PATH_OF[expert]: source for expert, source in generation.weights.items()
    }
    for one in generation.adapters:
        named[one.field.path], found[one.field.path] = one.field.weights, one.stored.path
    return _inputs_of(spec, generation.options, named, found)


def require_pinned(generation: Generation) -> None:
    """Holds weights against the digests that a spec says; where it says none, nothing is hashed.

    Raises:
        UserError: A digest is another.
    """
    if any(leaf.path.endswith(".digest") and leaf.value for leaf in leaves(generation.spec)):
        inputs_of(generation)


def given_inputs(spec: InferSpec) -> dict[str, Input]:
    """The images that a spec gives to its samples, by canonical path.

    Raises:
        UserError: Some can't be read.
    """
    found: dict[str, Input] = {}
    problems: list[Problem] = []
    for path, file in given_files(spec, spec.samples.requests).items():
        with gathering(problems), concerning(path):
            found[path] = file_input(Path(file))
    if problems:
        raise UserError(problems)
    return found


def _inputs_of(
    spec: InferSpec,
    options: RunOptions,
    named: Mapping[str, Weights],
    found: Mapping[str, Path | RandomWeights],
) -> dict[str, Input]:
    inputs = encoder_inputs(encoders_of(spec), options)
    if options.requests is None:
        inputs |= given_inputs(spec)
    problems: list[Problem] = []
    for path, source in found.items():
        with gathering(problems):
            if one := weights_input(named[path], source, options.contents_dir, path):
                inputs[path] = one
    if problems:
        raise UserError(problems)
    return inputs
