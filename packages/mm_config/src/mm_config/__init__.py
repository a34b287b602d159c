"""Configuration as code for video diffusion: specs and what can be done with a spec alone."""

from typing import Any

from mm_config.rules import problems
from mm_config.running import excepthook
from mm_config.schema.diff import diff
from mm_config.schema.evolve import replace
from mm_config.schema.identity import exact_hash, spec_hash
from mm_config.stored.files import dump, load

__all__ = ["diff", "dump", "exact_hash", "load", "main", "problems", "replace", "spec_hash"]

excepthook.install()


def main(spec: Any) -> None:
    """Runs an experiment file: parses the command line over `spec`, checks the result and runs it.

    The last line on stdout is the path of the run's `result.json`; a user's mistake ends with one
    line per problem on stderr and exit status 2.
    """
    from mm_config.cli.main import main as run_main

    run_main(spec)
