"""What differs between runs: fields of their specs, and what came of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from mm_config.cli.runs_page import REPEATED, SHORT, origin_of, result_of
from mm_config.console.output import print_lines, table
from mm_config.content.inputs import orders_of
from mm_config.runs.index import Index
from mm_config.runs.inputs import read_inputs
from mm_config.runs.provenance_diff import ORDER
from mm_config.runs.record import SPEC_FILE, RunRecord, to_row
from mm_config.runs.requests import stored_requests
from mm_config.schema.errors import UserError
from mm_config.schema.evolve import ROOT, leaves
from mm_config.schema.types import is_dict, is_list
from mm_config.stored.files import load

_HASHES = ("spec_hash", "exact_hash", "made_of")
_UNRECORDED = "content not recorded"


@attrs.frozen
class Row:
    """One line of a comparison."""

    name: str
    """A canonical path, or the name of a figure."""
    values: dict[str, Any]
    """By run id; a run that has none is left out."""
    unit: str | None = None
    """Of the values; None where they have none."""


def differing_inputs(index: Index, records: Sequence[RunRecord]) -> list[Row]:
    """Data, weights and files that are other content, by digest, or were read in another order, and the
    fields of stored requests."""
    contents: dict[str, dict[str, Any] | None] = {}
    for record in records:
        inputs = read_inputs(index.folder(record)) if index.is_here(record) else None
        contents[record.path] = inputs and {
            **{path: one.digest for path, one in inputs.items()},
            **{f"{path}, {ORDER}": key for path, key in orders_of(inputs).items()},
        }
    paths = sorted({path for found in contents.values() for path in found or ()})
    rows = [
        Row(path, {run: _UNRECORDED if found is None else found.get(path) for run, found in contents.items()})
        for path in paths
        if not path.startswith("requests.")
    ]
    requests = {record.path: dict(_asked(index, record)) for record in records}
    rows += [
        Row(name, {run: asked[name] for run, asked in requests.items() if name in asked})
        for name in dict.fromkeys(name for asked in requests.values() for name in asked)
    ]
    return [row for row in rows if _differ(row.values, contents)]


def differing_fields(index: Index, records: Sequence[RunRecord]) -> list[Row]:
    """The fields that differ, in order of declaration.

    Where the runs have specs of different kinds in a field, the fields inside it are left out.
    """
    fields = {record.path: index.fields(record) for record in records}
    units = {path: unit for record in records for path, unit in _units(index, record)}
    rows: list[Row] = []
    others: tuple[str, ...] = ()
    for path in dict.fromkeys(path for of_run in fields.values() for path in of_run):
        values = {run: of_run[path] for run, of_run in fields.items() if path in of_run}
        if not path.startswith(others) and _differ(values, fields):
            rows.extend(_by_item(Row(f"{ROOT}.{path}", values, units.get(path)), fields))
            others += (f"{path}.",)
    return rows


def figures(index: Index, records: Sequence[RunRecord]) -> list[Row]:
    """What came of the runs and where they ran: single values, not lists, of the result and the provenance.

    Versions of packages are given only where they differ.
    """
    rows: list[Row] = []
    for part in (_outcome, _result, _identity, origin_of):
        found = {record.path: dict(part(index, record)) for record in records}
        for name in dict.fromkeys(name for of_run in found.values() for name in of_run):
            values = {run: of_run[name] for run, of_run in found.items() if name in of_run}
            if not name.startswith("package.") or _differ(values, found):
                rows.append(Row(name, values))
    return rows


def print_comparison(
    records: Sequence[RunRecord], inputs: Sequence[Row], fields: Sequence[Row], results: Sequence[Row]
) -> None:
    """Prints three tables with a column per run."""
    runs = [record.path for record in records]
    if inputs:
        lines = [(row.name, *_cells(row, runs)) for row in inputs]
        table("inputs that differ", lines, header=("input", *runs))
    if fields:
        lines = [(row.name, *_cells(row, runs), row.unit or "") for row in fields]
        table("fields that differ", lines, header=("field", *runs, "unit"))
    else:
        print_lines(["no field differs"])
    lines = [(row.name, *_cells(row, runs)) for row in results]
    table("results", lines, header=("figure", *runs))


def comparison_report(
    records: Sequence[RunRecord], inputs: Sequence[Row], fields: Sequence[Row], results: Sequence[Row]
) -> dict[str, Any]:
    """The same as a JSON object; values by run id, a run that has none is left out."""
    return {
        "runs": [to_row(record) for record in records],
        "inputs": {row.name: row.values for row in inputs},
        "fields": [{"path": row.name, "unit": row.unit, "values": row.values} for row in fields],
        "figures": {row.name: row.values for row in results},
    }


def _differ(values: Mapping[str, Any], runs: Mapping[str, Any]) -> bool:
    # As JSON, true is not 1; as numbers, 1 is 1.0.
    first, *others = ((isinstance(value, bool), value) for value in values.values())
    return len(values) < len(runs) or any(value != first for value in others)


def _by_item(row: Row, runs: Mapping[str, Any]) -> Iterator[Row]:
    """A row per differing item where all runs have lists of equal length, else the row itself."""
    lists = [value for value in row.values.values() if is_list(value)]
    if len(lists) < len(runs) or len({len(items) for items in lists}) > 1:
        yield row
        return
    for index in range(len(lists[0])):
        values = {run: items[index] for run, items in row.values.items()}
        if _differ(values, runs):
            yield Row(f"{row.name}.{index}", values, row.unit)


def _asked(index: Index, record: RunRecord) -> Iterator[tuple[str, Any]]:
    """The fields of the requests that a run made in place of those of its spec."""
    requests = stored_requests(index.folder(record), record) if index.is_here(record) else None
    for place, request in enumerate(requests or ()):
        for leaf in leaves(request):
            yield f"requests.{place}.{leaf.path}", leaf.value


def _units(index: Index, record: RunRecord) -> Iterator[tuple[str, str]]:
    if not index.is_here(record):
        return
    try:
        spec = load(index.folder(record) / SPEC_FILE)
    except UserError:
        return
    for leaf in leaves(spec):
        if leaf.info.unit:
            yield leaf.path, leaf.info.unit


def _outcome(_: Index, record: RunRecord) -> Iterator[tuple[str, Any]]:
    return _of_record(record, "status", "reason")


def _result(index: Index, record: RunRecord) -> Iterator[tuple[str, Any]]:
    content = result_of(index, record)
    return _scalars({name: value for name, value in content.items() if name not in REPEATED}, "")


def _identity(_: Index, record: RunRecord) -> Iterator[tuple[str, Any]]:
    return _of_record(record, *_HASHES, "host", "started_at", "finished_at")


def _of_record(record: RunRecord, *names: str) -> Iterator[tuple[str, Any]]:
    row = to_row(record)
    return ((name, row[name]) for name in names if row[name] is not None)


def _scalars(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if is_dict(value):
            yield from _scalars(value, f"{prefix}{name}.")
        elif not is_list(value):
            yield f"{prefix}{name}", value


def _cells(row: Row, runs: Sequence[str]) -> list[str]:
    return [_cell(row.values[run]) if run in row.values else "-" for run in runs]


def _cell(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:SHORT]
    if isinstance(value, str) and value and value.isprintable():
        return value
    text = json.dumps(value, ensure_ascii=False)
    return f"({len(value)} items)" if is_list(value) and len(text) > 40 else text
