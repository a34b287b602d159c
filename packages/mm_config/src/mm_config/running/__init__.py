"""Carrying out a finished spec: runners, weights that a training makes, mistakes in experiment files."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.interrupts import Stopped, leave
    from mm_config.running.choosing import AVERAGE, taken_from, trained_input
    from mm_config.running.contents import checked_inputs
    from mm_config.running.runners import check_carried_out, equal_run
    from mm_config.running.saved import checkpoint_digest
    from mm_config.running.threads import on_threads
    from mm_config.running.trained_by import resolve_weights
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
