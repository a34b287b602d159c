"""Keys that their row alone decides, and the defaults of those that are missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mm_config.importing.facts import Fact, generic, typed
from mm_config.importing.mindspeed.files import WHY_NOT, Files
from mm_config.importing.mindspeed.keys import FLAG, INFERENCE, TRAINING_KINDS
from mm_config.importing.nodes import as_in_file
from mm_config.importing.readings import Because, Reading, given, refused, said, tried
from mm_config.importing.rows import Row
from mm_config.importing.verdict import Verdict
from mm_config.schema.fields import ABSENT


def by_row(files: Files, spoken: Collection[Because]) -> Iterator[Reading]:
    """What becomes of each fact that no reader of its own has spoken of."""
    for fact in files.facts:
        if fact in spoken:
            continue
        row = files.rows.get(fact)
        yield from (_unknown(files, fact),) if row is None else _by_row(files, fact, row)


def defaults(files: Files, targets: Collection[str]) -> Iterator[Reading]:
    """What MindSpeed-MM takes where keys are missing, for the fields that nothing else has a value of."""
    for row in files.table.rows:
        target = _target(files, row)
        if row.default is ABSENT or row.read is None or not target or "," in target or target in targets:
            continue
        if files.fact(row.kind, row.path) or not files.is_grouped(row) or _is_left_out(files, row.kind):
            continue
        if all(map(files.holds, row.when.split())):
            yield given(row.path, target, row.read(row.default))


def left_out(files: Files) -> Iterator[Reading]:
    """Files of generation say nothing of a training, and the other way round."""
    for fact in files.facts:
        if not _is_left_out(files, fact.source.kind):
            continue
        text = (
            "is about training; this import is of generation"
            if files.generation
            else "is about generation: import this file without those of training"
        )
        yield said(Verdict.OUTSIDE, fact, text)


def repeated(files: Files) -> Iterator[Reading]:
    """Keys that are given again later, where the last one holds."""
    for fact, row in files.rows.items():
        last = files.fact(row.kind, row.path)
        if "[]" in row.path or last is None or last is fact:
            continue
        same = last.value == fact.value
        text = f"is given again on line {last.line}, {'the same' if same else 'and the last one holds'}"
        yield said(Verdict.DERIVED if same else Verdict.CONFLICT, fact, text)


def unknown(files: Files, fact: Fact) -> str:
    """Why a key without a row is unknown, with the nearest one."""
    near = files.table.nearest_key(fact.source.kind, generic(fact.path))
    if near:
        return f"nothing reads it; did you mean {near}?"
    return f"no {fact.source.kind} of Wan's that is known"


def _is_left_out(files: Files, kind: str) -> bool:
    return kind in TRAINING_KINDS if files.generation else kind == INFERENCE


def _target(files: Files, row: Row) -> str:
    return row.infer if files.generation and row.kind == FLAG else row.target


def _by_row(files: Files, fact: Fact, row: Row) -> Iterator[Reading]:
    unmet = next((name for name in row.when.split() if not files.holds(name)), None)
    target = _target(files, row)
    if unmet is not None:
        yield said(Verdict.DEAD, fact, WHY_NOT[unmet])
    elif row.verdict is Verdict.REFUSED:
        yield refused(fact, row.reason)
    elif row.verdict is Verdict.MAPPED and not target:
        yield said(Verdict.DEAD, fact, "inference takes it only to satisfy Megatron")
    elif row.verdict is Verdict.MAPPED:
        value, wrong = (None, ()) if row.read is None else tried(fact, row.read)
        yield from wrong
        if not wrong and (row.read is None or "," in target or target.startswith("--")):
            yield said(Verdict.MAPPED, fact, target)
        elif not wrong:
            yield given(fact, target, value)
    elif row.only and not any(_equal(typed(fact), value) for value in row.only):
        allowed = " or ".join(map(as_in_file, row.only))
        yield refused(fact, f"{row.reason}; only {allowed} can be imported")
    else:
        yield said(row.verdict, fact, row.reason)


def _unknown(files: Files, fact: Fact) -> Reading:
    if fact.source.kind != "shell variable":
        return said(Verdict.UNKNOWN, fact, unknown(files, fact))
    flags = files.reached.get(fact.path)
    reaches = f"its value reaches {', '.join(flags)}" if flags else ""
    return said(Verdict.DERIVED, fact, reaches or "a variable of the script; flags that it reaches have rows")


def _equal(value: object, allowed: object) -> bool:
    return type(value) is type(allowed) and value == allowed
