"""What the verbs of weights share: the spec that weights are held against."""

from __future__ import annotations

from mm_config.cli import CommandLine, Option, resolve, runs_dir_of
from mm_config.options import Locations, RunOptions

SPEC = Option(
    "--spec",
    "The spec that says the network: an experiment file, a saved spec, a run folder, a module, a run id or a "
    "hash prefix.",
    "TARGET",
)

PART = Option(
    "--part",
    'Of weights that hold several networks: what stands before the names of the one that is meant; "" is '
    "nothing.",
    "PREFIX",
    may_be_empty=True,
)


def spec_of(line: CommandLine) -> object:
    """What `--spec` names; None where it was not given.

    Raises:
        UserError: The target is no spec.
    """
    target = line.value(SPEC)
    return (
        None
        if target is None
        else resolve(target, RunOptions(runs_dir=runs_dir_of(line), locations=Locations()))
    )
