"""The tables in docs/ that come from the tables the code works by.

    python scripts/write_docs.py

writes them into their pages; tests hold the pages against them.
"""

from __future__ import annotations

import enum
import json
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mm_config.importing import rows
from mm_config.importing.mindspeed import table as mindspeed
from mm_config.importing.mindspeed.files import WHY_NOT
from mm_config.importing.nodes import as_in_file
from mm_config.importing.telefuser import table as telefuser
from mm_config.importing.verdict import Verdict
from mm_config.npu.advice import ADVICE
from mm_config.npu.variables import VARIABLES
from mm_config.schema.evolve import Leaf, leaves
from mm_config.schema.fields import ABSENT, FieldInfo
from mm_config.specs.npu import NpuSpec

DOCS = Path(__file__).parents[1] / "docs"
MINDSPEED_KEYS, TELEFUSER, NPU = (
    DOCS / "mindspeed_keys.md",
    DOCS / "coming_from_telefuser.md",
    DOCS / "npu.md",
)

_INTRODUCTION = """# MindSpeed-MM's keys

What `mm import mindspeed` makes of each key, flag and environment variable (MindSpeed-MM 26.0.0, Wan 2.1 and
2.2), generated from the table that it works by. *Mapped* keys become the field named here; the flags
`--location` and `--runs-dir` stand beside the experiment. *Derived* keys follow from others or hold
always; where values are listed, all others are refused. *Dead there* means that nothing of MindSpeed-MM
reads the key on Wan's path. *Outside the spec* is about the machine or one request. `[]` is any element
of a list.
"""


def pages() -> dict[Path, str]:
    """Each page with tables, as it should be."""
    return {
        MINDSPEED_KEYS: mindspeed_keys(),
        TELEFUSER: with_parts(TELEFUSER.read_text("utf-8"), {"table": "\n".join(telefuser_fields())}),
        NPU: with_parts(NPU.read_text("utf-8"), {"variables": npu_variables(), "advice": npu_advice()}),
    }


def with_parts(page: str, parts: Mapping[str, str]) -> str:
    """A page with parts replaced, each between `<!-- NAME -->` and `<!-- end of NAME -->`."""
    for name, text in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(start)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"the page has no part {name}")
        page = f"{before}{start}\n{text.strip()}\n\n{end}{after}"
    return page


def mindspeed_keys() -> str:
    """What `mm import mindspeed` makes of each key, as a page."""
    return "\n".join(_mindspeed_lines())


def _mindspeed_lines() -> Iterator[str]:
    yield _INTRODUCTION
    for kind in dict.fromkeys(row.kind for row in mindspeed.TABLE.rows):
        rows = [row for row in mindspeed.TABLE.rows if row.kind == kind]
        cells = [(f"`{row.path}`", row.verdict.value, _about(row).replace("|", "\\|")) for row in rows]
        yield from (f"## {kind}", "", _table(("Key", "Verdict", "What becomes of it"), cells), "")


def _about(row: rows.Row) -> str:
    parts = [_target(row)] if row.verdict is Verdict.MAPPED else [row.reason]
    if row.only and row.only is not rows.NO_KEYS:
        parts.append(f"only {', '.join(f'`{as_in_file(value)}`' for value in row.only)}")
    if row.when:
        parts.append(f"dead there where {' or '.join(WHY_NOT[name] for name in row.when.split())}")
    return "; ".join(parts)


def _target(row: rows.Row) -> str:
    if row.kind != "shell flag" or row.target.startswith("--"):
        return _code(row.target)
    return f"{_code(row.target)}; in inference {_code(row.infer) or 'dead'}"


def _code(names: str) -> str:
    return ", ".join(f"`{name.strip()}`" for name in names.split(",") if name)


def telefuser_fields() -> Iterator[str]:
    """What becomes of each field of TeleFuser's classes, a section for each class."""
    for owner in dict.fromkeys(row.kind for row in telefuser.ROWS):
        title = owner if owner.startswith(("the ", "an ")) else f"`{owner}`"
        cells = [
            (f"`{row.path}`", _default(row), row.verdict.value, _code(row.target), row.reason)
            for row in telefuser.CLASSES[owner].values()
        ]
        yield from ("", f"### {title[0].upper()}{title[1:]}", "")
        yield _table(("field", "default there", "verdict", "here", "why"), cells)


def _default(row: rows.Row) -> str:
    if row.default is ABSENT or (row.inside and row.default is None):
        return ""
    return "null" if row.default is None else f"`{json.dumps(row.default)}`"


def npu_variables() -> str:
    """Every field of `runtime.npu` with its variable, its values and what it does."""
    names = {variable.field: variable.name for variable in VARIABLES}
    rows = [_npu_cells(leaf, names[leaf.path.partition(".")[0]]) for leaf in leaves(NpuSpec())]
    return _table(("`runtime.npu.`", "Variable", "Values", "What it says"), rows)


def _npu_cells(leaf: Leaf, variable: str) -> tuple[str, ...]:
    about = leaf.help.removeprefix(f"{variable}: ")
    return f"`{leaf.path}`", f"`{variable}`", _values(leaf.type, leaf.info), about[0].upper() + about[1:]


def _values(kind: Any, info: FieldInfo) -> str:
    (plain,) = (one for one in typing.get_args(kind) or (kind,) if one not in (type(None), ...))
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        return ", ".join(str(member.value) for member in plain)
    if plain is bool:
        return "True, False"
    unit = f" {info.unit}" if info.unit else ""
    if info.le is not None:
        return f"{info.ge:,} to {info.le:,}{unit}"
    if info.lt is not None:
        return f"between {info.gt} and {info.lt}"
    if info.ge is not None:
        return f"numbers from {info.ge}" if info.min_length else f"from {info.ge}{unit}"
    return "text" if plain is str else "ranges"


def npu_advice() -> str:
    """What MindSpeed-MM's scripts set beside what is advised."""
    rows = [
        (
            f"`{one.variable}`",
            one.unset,
            f"`{one.mindspeed}`",
            f"`{one.advised}`" if one.advised else "unset",
            one.why,
        )
        for one in ADVICE
    ]
    return _table(("Variable", "Unset", "MindSpeed-MM", "Advised", "Why"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join((lines[0], "|" + "---|" * len(head), *lines[1:]))


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, "utf-8")
