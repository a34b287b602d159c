"""Values of fields in the index: conditions on them hold as Python's comparisons do, in every database."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mm_config.runs.conditions import Condition
from mm_config.runs.field_texts import sorting, text_of, value_of
from mm_config.runs.index import open_index
from mm_config.runs.record import RunRecord, RunStatus
from mm_config.runs.stored import Stored
from mm_config.schema.errors import UserError

each_database = pytest.mark.usefixtures("each_database")

NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False), st.integers(-(2**70), 2**70).map(float))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(st.characters(exclude_categories=()))),
    lambda inner: st.lists(inner, max_size=4),
)


@given(NUMBERS, NUMBERS)
@example(2**53 + 1, 2.0**53)
@example(10**23, 1e23)
@example(1, 1.5)
@example(-1, -1.5)
@example(0.1, 0.30000000000000004)
@example(5e-324, 0)
@example(-0.0, 0)
@example(math.inf, 10**4000)
def test_texts_of_numbers_are_in_the_order_of_the_numbers(first: float, second: float) -> None:
    one, other = sorting(first), sorting(second)
    assert (one < other, one == other, one > other) == (first < second, first == second, first > second)
    if first != second:
        assert not text_of(second).startswith(one)
        assert (text_of(first) < text_of(second)) == (first < second)


@given(VALUES)
@example("nul \0, surrogate \udcff, \uffff and \U000f0000")
@example([1, 1.0, True, "1", None, [-2.5, 10**30]])
def test_every_value_comes_back_from_its_text(value: Any) -> None:
    text = text_of(value)
    assert repr(value_of(json.loads(json.dumps(text)))) == repr(value)
    json.dumps(text, ensure_ascii=False).encode()
    assert "\0" not in str(text)


STORED: tuple[Any, ...] = (
    *(0, -0.0, 1, 1.0, -1, -1.5, 0.1, 1e-5, 2**53, 2.0**53, 2**53 + 1, 2**63 - 1, 2**63, 2.0**63, 2**63 + 1),
    *(-(2**63) - 1, 10**23, 1e23, 10**400, math.inf, -math.inf, math.nan),
    *(
        None,
        True,
        False,
        "",
        "1",
        "true",
        "null",
        "[1]",
        "'",
        "a'b",
        'a"b\\',
        "A",
        "nul \0.",
        "%",
        "\u706b\u7403",
    ),
    *([], [1], [1.0], [True], [1, 2], [[1], "a"], ["a", "b%"], ["nul \0."], [None]),
)
WANTED = (
    *(value for value in STORED if not (isinstance(value, float) and not math.isfinite(value))),
    *(
        "a",
        "b",
        "\0",
        "nul",
        "_",
        "%",
        "\u706b",
        "#",
        ["a", "b%", "c"],
        ["1"],
        2**64,
        0.10000000000000002,
        -2,
    ),
)


def holds(condition: Condition, value: Any) -> bool:
    """Whether a value meets a condition, as Python compares: values of different kinds are never equal."""
    wanted = condition.value
    both_numbers = all(type(one) in (int, float) for one in (value, wanted))
    match condition.operator:
        case "~":
            return any(
                isinstance(one, str) and wanted in one for one in (value if type(value) is list else [value])
            )
        case "=":
            return same(value, wanted)
        case "!=":
            return not same(value, wanted)
        case "<":
            return both_numbers and value < wanted
        case "<=":
            return both_numbers and value <= wanted
        case ">":
            return both_numbers and value > wanted
        case _:
            return both_numbers and value >= wanted


def same(value: Any, wanted: Any) -> bool:
    if type(value) is list and type(wanted) is list:
        return len(value) == len(wanted) and all(map(same, value, wanted))
    alike = type(value) is type(wanted) or all(type(one) in (int, float) for one in (value, wanted))
    return alike and value == wanted


def record(number: int) -> RunRecord:
    return RunRecord(
        uid=f"{number:032x}",
        path=f"values/{number}",
        name=str(number),
        kind="test",
        spec_hash=f"{number:064x}",
        exact_hash=f"{number:064x}",
        status=RunStatus.FINISHED,
        host="here",
        started_at="2026-11-22T00:00:00.000000+00:00",
    )


@each_database
def test_conditions_hold_as_comparisons_of_python(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    # Beside `x`, a field that begins alike and one that an item of a list is never taken for.
    contents = [{"x": value, "x.y": 0, "xy": 1, "items": [0, value]} for value in STORED]
    index.add_all((record(number), Stored(fields)) for number, fields in enumerate((*contents, {"other": 1})))
    operators = {"text": ("=", "!=", "~"), "number": ("=", "!=", "<", "<=", ">", ">="), "other": ("=", "!=")}
    for path, wanted in product(("x", "items.1"), WANTED):
        kind = "text" if type(wanted) is str else "number" if type(wanted) in (int, float) else "other"
        for operator in operators[kind]:
            condition = Condition(path, operator, wanted)
            found = {int(one.name) for one in index.list(where=[condition])}
            expected = {number for number, value in enumerate(STORED) if holds(condition, value)}
            assert found == expected, condition
    with pytest.raises(UserError, match=r"spec\.items\.2: no stored run has this field"):
        index.list(where=[Condition("items.2", "=", 1)])


@each_database
def test_fields_of_a_run_whose_folder_is_gone_are_those_that_were_indexed(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    fields = {"number": 2**63 + 1, "float": 1.0, "nul": "\0 \udcff", "list": [1, "a", None]}
    index.add_all([(record(0), Stored(fields))])
    assert repr(index.fields(record(0))) == repr(dict(sorted(fields.items())))
    assert index.fields(record(1)) == {}
