"""What stands beside a spec and never in it: the options of a run, and where weights and data lie."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.options.locations import FLAG, Locations, load_locations, unused_names
    from mm_config.options.run_options import RunOptions, RunOutcome, StoppedEarly, Threads
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
