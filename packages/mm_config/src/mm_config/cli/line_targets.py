"""The targets of a command line: what its words name, with its fields put into the last."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from mm_config import rules
from mm_config.cli.parse import Rule, overridden
from mm_config.cli.scan import CommandLine
from mm_config.cli.targets import Target, find, runs_dir_of
from mm_config.options.locations import Locations
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import Problem, UserError, gathering
from mm_config.schema.root import RootSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec


def read_targets(line: CommandLine, world_size: int | None = None, *more: Rule) -> tuple[RootSpec, ...]:
    """The specs of `read_whole_targets`."""
    return tuple(target.spec for target in read_whole_targets(line, world_size, *more))


def read_generations(line: CommandLine, world_size: int | None = None) -> tuple[Target, ...]:
    """The same for verbs that make videos: of a training, what makes them with its weights.

    Raises:
        UserError: As `read_whole_targets`, or a target makes no videos.
    """
    targets = read_whole_targets(line, world_size, turned=_generation)
    problems = [
        Problem(word, "makes no videos: expected an inference spec or a training")
        for word, target in zip(line.words, targets, strict=True)
        if not isinstance(target.spec, InferSpec)
    ]
    if problems:
        raise UserError(problems)
    return targets


def _generation(spec: RootSpec) -> RootSpec:
    return rules.generation_by(spec) if isinstance(spec, TrainSpec) else spec


def read_whole_targets(
    line: CommandLine,
    world_size: int | None = None,
    *more: Rule,
    turned: Callable[[RootSpec], RootSpec] = lambda spec: spec,
) -> tuple[Target, ...]:
    """What the words of a command line name, each spec checked and the fields put into the last.

    Args:
        line: The command line.
        world_size: Processes of the run; None where nothing is started.
        more: What else is held of each spec.
        turned: Makes another spec of each that is found, into which fields are put.

    Raises:
        UserError: All that is wrong with the options, the targets and their specs.
    """
    problems = list(line.problems)
    options = RunOptions(runs_dir=runs_dir_of(line), locations=Locations())
    targets: list[Target] = []
    for index, target in enumerate(line.words, 1):
        fields = line.fields if index == len(line.words) else ()
        with gathering(problems):
            found = find(target, options)
            spec = overridden(turned(found.spec), fields, (), line.flags, world_size, *more)
            targets.append(attrs.evolve(found, spec=spec))
    if problems:
        raise UserError(problems)
    return tuple(targets)
