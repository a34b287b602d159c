"""Configuration as code for video diffusion: specs and what can be done with a spec alone."""

# pyright: reportUnusedImport=false
# ruff: noqa: E402

from mm_config.interrupts import take_over

take_over()  # Before the imports that take time.

from typing import TYPE_CHECKING, Any

from mm_config.running.excepthook import install_for_an_experiment
from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.options.run_options import RunOptions, RunOutcome, StoppedEarly
    from mm_config.rules.whole import problems
    from mm_config.schema.diff import diff
    from mm_config.schema.errors import SpecError, UserError
    from mm_config.schema.evolve import replace
    from mm_config.schema.identity import exact_hash, spec_hash
    from mm_config.stored.files import dump, load
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
    __all__.append("main")

install_for_an_experiment()


def main(spec: Any) -> "RunOutcome | None":
    """Runs an experiment file: parses the command line over `spec`, checks the result and runs it.

    The last line on stdout is the path of the run's `result.json`; a user's mistake ends with one
    line per problem on stderr and exit status 2. In a notebook the spec is run as it is, and a mistake is
    raised: as a UserError, or as a TypeError where `spec` is no spec.
    """
    from mm_config.cli.main import main as run_main

    return run_main(spec)
