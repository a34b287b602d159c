"""What a generation is made of: the weights of its experts, adapters and encoders, and given files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mm_config.content import Input, file_input
from mm_config.options import RunOptions
from mm_config.running import resolve_weights
from mm_config.schema import Problem, UserError, gathering
from mm_config.specs import GenerationRequest, InferSpec, RandomWeights, Weights
from mm_infer.adapters import adapter_fields
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
    return _inputs_of(spec, options, named, found) | given_inputs(spec)


def inputs_of(generation: Generation, requests: Sequence[GenerationRequest] = ()) -> dict[str, Input]:
    """What an opened generation is made of, by canonical path; nothing of it is left to train.

    Args:
        generation: Opened.
        requests: What is asked for beside the spec; files of the spec's own samples are named by its fields.

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
    given = request_inputs(requests) if requests else given_inputs(spec)
    return _inputs_of(spec, generation.options, named, found) | given


def given_inputs(spec: InferSpec) -> dict[str, Input]:
    """The images that a spec gives to its samples, by canonical path."""
    samples = spec.samples
    listed = (("images", samples.images), ("last_images", samples.last_images))
    return _files(
        (f"spec.samples.{name}.{index}", file) for name, files in listed for index, file in enumerate(files)
    )


def request_inputs(requests: Sequence[GenerationRequest]) -> dict[str, Input]:
    """The images and videos that requests give, by the place of the request and its field."""
    return _files(
        (f"requests.{index}.{name}", file)
        for index, request in enumerate(requests)
        for name in ("image", "last_image", "video")
        if (file := getattr(request, name)) is not None
    )


def _files(named: Iterator[tuple[str, str]]) -> dict[str, Input]:
    found: dict[str, Input] = {}
    problems: list[Problem] = []
    for path, file in named:
        try:
            found[path] = file_input(Path(file))
        except UserError as error:
            problems += [Problem(path, problem.message) for problem in error.problems]
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
    problems: list[Problem] = []
    for path, source in found.items():
        with gathering(problems):
            if one := weights_input(named[path], source, options.contents_dir, path):
                inputs[path] = one
    if problems:
        raise UserError(problems)
    return inputs
