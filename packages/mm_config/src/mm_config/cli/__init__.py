"""The command line: `main(SPEC)` of experiment files, and `mm` with its verbs."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.cli.diff_page import grouped
    from mm_config.cli.exits import exit_status
    from mm_config.cli.like import LIKE, threads_like
    from mm_config.cli.line_targets import read_generations, read_targets
    from mm_config.cli.main import ACCEPT_CONTENT, LOCATION
    from mm_config.cli.parse import overridden
    from mm_config.cli.scan import HELP, JSON, RUNS_DIR, CommandLine, Option, html_file, whole_number
    from mm_config.cli.targets import TARGET_HELP, find, find_run, resolve, runs_dir_of
    from mm_config.cli.verb import MORE, Action, Usage, Verb, VerbGroup
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
