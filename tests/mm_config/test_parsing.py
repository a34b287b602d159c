"""Text of JSON and YAML as plain data, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from mm_config.schema.errors import SpecError, UserError
from mm_config.stored.parsing import checked, parse_json, parse_yaml


def read(parse: Callable[[str], Any], text: str) -> Any:
    data, problems = checked(parse(text))
    if problems:
        raise SpecError(problems)
    return data


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-5", 1e-5),
        ("1", 1),
        ("-.5", -0.5),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_yaml_scalars_are_those_of_the_core_schema(scalar: str, value: object) -> None:
    found = read(parse_yaml, f"key: {scalar}")["key"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: 1\na: 2", "a: the key is given twice"),
        ("a: {b: 1, b: 2}", "a.b: the key is given twice"),
        ("a: &x 1\nb: *x", "anchors and aliases"),
        ("a: !!python/object:os.system {}", "not allowed"),
        ("a: !!int x", "'x' is no int"),
        ("1: 2", "a key must be a string, got int 1"),
        ("a: {~: adamw}", "a: a key must be a string, got None; write the key '~' in quotes"),
        ("a: [1", "line "),
        ("a: 1\n---\nb: 2", "line 2"),
        ('a: "\\ud800"', "lone surrogate"),
        ("[" * 600, "nested deeper"),
        ("a: " + "1" * 5000, "more digits"),
        ("a: \x00", "no YAML"),
    ],
)
def test_yaml_that_is_not_allowed(text: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        read(parse_yaml, text)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"a": 1, "a": 2}', "a: the key is given twice"),
        ('{"a": {"b": 1, "b": 2}}', "a.b: the key is given twice"),
        ('{"a": "\\ud800"}', "a: holds a lone surrogate"),
        ('{"a": 1,}', "line 1, column"),
        ("", "line 1, column 1"),
        ("[" * 100_000, "nested deeper"),
        ("[" * 80 + "]" * 80, "nested deeper"),
        ("1" * 5000, "more digits"),
    ],
)
def test_json_that_is_not_allowed(text: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        read(parse_json, text)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("lr", "lr"),
        ("变", "变"),
        ("a b", "a b"),
        ("a\nb", r"'a\nb'"),
        ("", "''"),
        (" x", "' x'"),
        ("\u2028", r"'\u2028'"),
        ("k" * 5000, f"'{'k' * 80}'..."),
    ],
)
def test_a_key_of_any_content_is_shown_on_one_line(key: str, shown: str) -> None:
    _, problems = checked({"spec": {key: float, "~": {key: "\ud800"}}})
    assert [problem.path for problem in problems] == [f"spec.~.{shown}"]


@pytest.mark.parametrize(("parse", "levels"), [(parse_json, 10_000), (parse_yaml, 10_000), (parse_json, 66)])
def test_deep_nesting_is_one_problem(parse: Callable[[str], Any], levels: int) -> None:
    for text in ("[" * levels + "]" * levels, '{"x": ' * levels + "1" + "}" * levels):
        with pytest.raises(UserError, match="nested deeper than 64 levels") as caught:
            read(parse, text)
        assert len(caught.value.problems) == 1


def test_data_that_is_nested_ten_thousand_levels_deep_is_one_problem() -> None:
    tree: Any = 1
    for _ in range(10_000):
        tree = [tree]
    _, problems = checked(tree)
    assert [problem.message for problem in problems] == ["nested deeper than 64 levels"]
