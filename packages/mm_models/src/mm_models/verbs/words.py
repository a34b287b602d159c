"""What the verbs of weights share: their words, and the spec that weights are held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mm_config.cli.page import Usage
from mm_config.cli.scan import HELP, CommandLine, Option
from mm_config.cli.targets import resolve, runs_dir_of
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.suggestions import did_you_mean

if TYPE_CHECKING:
    from mm_config.specs.kinds import ModelSpec

SPEC = Option(
    "--spec",
    "The spec that says the network: an experiment file, a saved spec, a run folder, a module, a run id or a "
    "hash prefix.",
    "TARGET",
)


def words_of(line: CommandLine, usage: Usage, names: Sequence[str]) -> tuple[str, ...]:
    """The command line's words, as many as there are names.

    Raises:
        UserError: There are more or fewer, or the line holds unknown flags or other mistakes.
    """
    flags = [option.flag for option in (*usage.options, HELP)]
    problems = list(line.problems)
    problems += [
        Problem(given.flag, f"unknown flag{did_you_mean(given.flag, flags)}") for given in line.fields
    ]
    if len(line.words) != len(names):
        given = f"got {len(line.words)}: {' '.join(line.words)}" if line.words else "got none"
        problems.append(Problem("", f"expected {' and '.join(names)}, {given} (usage: {usage.line})"))
    if problems:
        raise UserError(problems)
    return line.words


def model_of(line: CommandLine) -> ModelSpec | None:
    """The network of `--spec`, where it was given.

    Raises:
        UserError: The target is no spec, or the weights of its network are not published.
    """
    target = line.value(SPEC)
    if target is None:
        return None
    spec = resolve(target, RunOptions(runs_dir=runs_dir_of(line)))

    from mm_models.weights.published import published_model

    return published_model(spec, target)
