"""All rows: what becomes of each key, flag and variable of MindSpeed-MM."""

from __future__ import annotations

from mm_config.importing.mindspeed.data_rows import DATA
from mm_config.importing.mindspeed.environment_rows import ENVIRONMENT
from mm_config.importing.mindspeed.files import Table
from mm_config.importing.mindspeed.fsdp_rows import SHARDING_ROWS
from mm_config.importing.mindspeed.inference_rows import INFERENCE
from mm_config.importing.mindspeed.keys import INFERENCE as INFERENCE_FILE
from mm_config.importing.mindspeed.model_rows import MODEL, SHARED, TILES
from mm_config.importing.mindspeed.native_rows import NATIVE
from mm_config.importing.mindspeed.shell_rows import FLAGS
from mm_config.importing.mindspeed.tools_rows import TOOLS
from mm_config.importing.rows import of_kind

_OWN = {row.path for row in INFERENCE}
_SHARED = [row for row in (*SHARED, *TILES) if row.path not in _OWN]

TABLE = Table(
    (
        *MODEL,
        *of_kind(INFERENCE_FILE, *INFERENCE, *_SHARED),
        *DATA,
        *SHARDING_ROWS,
        *TOOLS,
        *FLAGS,
        *ENVIRONMENT,
        *NATIVE,
    )
)
