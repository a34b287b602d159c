"""MindSpeed-MM's table: what becomes of each key, flag and variable."""

from __future__ import annotations

from functools import cached_property

import attrs

from mm_config.importing.rows import Row
from mm_config.importing.verdict import Verdict
from mm_config.schema.suggestions import nearest

FLAG = "shell flag"
_BASES = {"model": "model.json", "data": "data.json", "tools": "tools.json"}


@attrs.frozen(slots=False, eq=False)
class Table:
    """What becomes of each key, flag and variable."""

    rows: tuple[Row, ...]
    """One for each kind of file and path."""

    @cached_property
    def _by_key(self) -> dict[tuple[str, str], Row]:
        return {(row.kind, row.path): row for row in self.rows}

    def row_of(self, kind: str, path: str) -> Row | None:
        """The row of a key, its path with `[]` for each list element; None where there is none.

        In a native YAML file the sections `model`, `data` and `tools` hold the keys of the JSON files.
        """
        found = self._by_key.get((kind, path))
        if found is None and kind == "native.yaml":
            section, _, below = path.partition(".")
            return self._by_key.get((_BASES.get(section, ""), below))
        return found

    def top_keys(self, kind: str) -> frozenset[str]:
        """The keys at the root of a kind of file."""
        return frozenset(row.path.partition(".")[0] for row in self.rows if row.kind == kind)

    def nearest_key(self, kind: str, path: str) -> str | None:
        """The known key that a misspelt one was probably meant to be."""
        known = [row.path for row in self.rows if row.kind == kind and row.verdict is not Verdict.MISSPELT]
        parent = path.rpartition(".")[0]
        siblings = [key for key in known if key.rpartition(".")[0] == parent]
        return next(iter(nearest(path, siblings) or nearest(path, known)), None)
