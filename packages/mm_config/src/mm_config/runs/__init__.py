"""Run folders, their provenance, their SQL index, and what is found through them."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.runs.folder import Run, attach, check_opens, open_run, recorded, resumed
    from mm_config.runs.inputs import read_inputs
    from mm_config.runs.marks import comment_for, digests_of
    from mm_config.runs.record import STATUS_FILE, read_result
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
