"""What the verbs of weights share: the spec that weights are held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm_config.cli import CommandLine, Option, resolve, runs_dir_of
from mm_config.options import RunOptions

if TYPE_CHECKING:
    from mm_config.specs import ModelSpec

SPEC = Option(
    "--spec",
    "The spec that says the network: an experiment file, a saved spec, a run folder, a module, a run id or a "
    "hash prefix.",
    "TARGET",
)


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
