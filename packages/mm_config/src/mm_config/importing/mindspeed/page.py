"""The table as a page of the documentation."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.importing.mindspeed.conditions import WHY_NOT
from mm_config.importing.mindspeed.rows import NO_KEYS, Row
from mm_config.importing.mindspeed.table import ROWS
from mm_config.importing.mindspeed.values import said
from mm_config.importing.verdict import Verdict

_INTRODUCTION = """# MindSpeed-MM's keys

What `mm import mindspeed` makes of each key, flag and variable (MindSpeed-MM 26.0.0, Wan 2.1 and 2.2),
generated from the table that it works by. *Mapped* keys become the field named here; the flags
`--location` and `--runs-dir` stand beside the experiment. *Derived* keys follow from others or hold
always; where values are listed, all others are refused. *Dead there* means that nothing of MindSpeed-MM
reads the key on Wan's path. *Outside the spec* is about the machine or one request. `[]` is any element
of a list.
"""


def table_page() -> str:
    """The page, in Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    for kind in dict.fromkeys(row.kind for row in ROWS):
        yield f"## {kind}"
        yield ""
        yield "| Key | Verdict | What becomes of it |"
        yield "|---|---|---|"
        for row in ROWS:
            if row.kind == kind:
                yield f"| `{row.path}` | {row.verdict.value} | {_escaped(_about(row))} |"
        yield ""


def _about(row: Row) -> str:
    parts = [_target(row)] if row.verdict is Verdict.MAPPED else [row.reason]
    if row.only and row.only is not NO_KEYS:
        parts.append(f"only {', '.join(f'`{said(value)}`' for value in row.only)}")
    if row.when:
        parts.append(f"dead there where {' or '.join(WHY_NOT[name] for name in row.when.split())}")
    return "; ".join(parts)


def _target(row: Row) -> str:
    shown = ", ".join(f"`{name.strip()}`" for name in row.target.split(","))
    infer = ", ".join(f"`{name.strip()}`" for name in row.infer.split(",") if name)
    if row.kind != "shell flag" or row.target.startswith("--"):
        return shown
    return f"{shown}; in inference {infer or 'dead'}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
