"""All rows: what becomes of each key, flag and variable of MindSpeed-MM."""

from __future__ import annotations

from functools import cache

from mm_config.importing.mindspeed.data_rows import DATA
from mm_config.importing.mindspeed.environment_rows import ENVIRONMENT
from mm_config.importing.mindspeed.fsdp_rows import SHARDING_ROWS
from mm_config.importing.mindspeed.inference_rows import INFERENCE
from mm_config.importing.mindspeed.model_rows import MODEL
from mm_config.importing.mindspeed.native_rows import NATIVE
from mm_config.importing.mindspeed.rows import Row
from mm_config.importing.mindspeed.shell_rows import FLAGS
from mm_config.importing.mindspeed.tools_rows import TOOLS
from mm_config.importing.verdict import Verdict
from mm_config.schema.suggestions import nearest

ROWS: tuple[Row, ...] = (
    *MODEL,
    *INFERENCE,
    *DATA,
    *SHARDING_ROWS,
    *TOOLS,
    *FLAGS,
    *ENVIRONMENT,
    *NATIVE,
)

_BASES = {"model": "model.json", "data": "data.json", "tools": "tools.json"}


@cache
def _by_key() -> dict[tuple[str, str], Row]:
    return {(row.kind, row.path): row for row in ROWS}


def row_of(kind: str, path: str) -> Row | None:
    """The row of a key, its path with `[]` for each list element; None where there is none.

    In a native YAML file the sections `model`, `data` and `tools` hold the keys of the JSON files.
    """
    found = _by_key().get((kind, path))
    if found is None and kind == "native.yaml":
        section, _, below = path.partition(".")
        return _by_key().get((_BASES.get(section, ""), below))
    return found


@cache
def top_keys(kind: str) -> frozenset[str]:
    """The keys at the root of a kind of file."""
    return frozenset(row.path.partition(".")[0] for row in ROWS if row.kind == kind)


def nearest_key(kind: str, path: str) -> str | None:
    """The known key that a misspelt one was probably meant to be."""
    known = [row.path for row in ROWS if row.kind == kind and row.verdict is not Verdict.MISSPELT]
    parent = path.rpartition(".")[0]
    siblings = [key for key in known if key.rpartition(".")[0] == parent]
    return next(iter(nearest(path, siblings) or nearest(path, known)), None)
