"""Run folders, their provenance, their SQL index, and what is found through them."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema.faces import lazy

if TYPE_CHECKING:
    from mm_config.runs.asking import Asked, Listed
    from mm_config.runs.conditions import Condition, parse_condition
    from mm_config.runs.database import database_errors, engine_of, writing
    from mm_config.runs.folder import Run, attach, check_opens, open_run, recorded, resumed
    from mm_config.runs.index import Index, open_index
    from mm_config.runs.inputs import read_inputs
    from mm_config.runs.marks import Mark, comment_for, digests_of, mark_of
    from mm_config.runs.paging import RunsPage, page_of, runs_that_name
    from mm_config.runs.provenance import read_provenance, utc_now
    from mm_config.runs.record import STATUS_FILE, RunRecord, RunStatus, read_result
    from mm_config.runs.requests import request_inputs
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
