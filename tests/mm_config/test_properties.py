"""What holds for every spec: files, flags and Python give one value and one hash."""

import enum
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_config import diff, exact_hash, replace, spec_hash
from mm_config.cli.flags import is_settable
from mm_config.cli.parse import parse_fields
from mm_config.cli.scan import is_flag, scan
from mm_config.schema.errors import SpecError
from mm_config.schema.evolve import get, leaves
from mm_config.schema.fields import ABSENT, EXECUTION, SEMANTIC, info_of, spec_fields, wire_name
from mm_config.schema.identity import payload_hash
from mm_config.stored.files import dumps, from_payload, to_payload
from mm_config.stored.parsing import checked, parse_json, parse_yaml
from mm_config.stored.structuring import known_specs
from tests.mm_config.strategies import changes, experiments, spec_classes, specs

SLOW_TO_DRAW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
few = settings(max_examples=6, deadline=None, suppress_health_check=SLOW_TO_DRAW)
some = settings(max_examples=40, deadline=None, suppress_health_check=SLOW_TO_DRAW)


def hashes(spec: Any) -> tuple[str, str]:
    return spec_hash(spec), exact_hash(spec)


def same(loaded: Any, spec: Any) -> bool:
    return loaded == spec and hashes(loaded) == hashes(spec) and to_payload(loaded) == to_payload(spec)


def shuffled(value: Any, order: random.Random) -> Any:
    """The same data with the keys of every mapping in another order."""
    if isinstance(value, dict):
        items = list(value.items())
        order.shuffle(items)
        return {key: shuffled(item, order) for key, item in items}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


def with_whole_numbers(value: Any) -> Any:
    """The same data with `1` for `1.0`."""
    if isinstance(value, dict):
        return {key: with_whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def before_growth(value: Any) -> Any:
    """The data as it was written before the fields that hold their neutral value were added."""
    if isinstance(value, list):
        return [before_growth(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag: Any = value.get("~", value.get("kind"))
    neutral = {
        wire_name(attribute): to_payload_value(info_of(attribute).neutral)
        for attribute in spec_fields(known_specs()[tag])
        if info_of(attribute).neutral is not ABSENT
    }
    return {
        key: before_growth(item)
        for key, item in value.items()
        if key not in neutral or (type(item), item) != (type(neutral[key]), neutral[key])
    }


def to_payload_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [to_payload_value(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if hasattr(value, "__spec_tag__"):
        payload: Any = to_payload(value)
        return {"~": payload["kind"], **payload["spec"]}
    return value


@pytest.mark.parametrize("tag", spec_classes())
@given(data=st.data())
@few
def test_every_spec_survives_files_of_any_order_and_spelling(tag: str, data: st.DataObject) -> None:
    spec = data.draw(specs(spec_classes()[tag]))
    payload = to_payload(spec)
    for parse, text in ((parse_json, dumps(spec, "json")), (parse_yaml, dumps(spec, "yaml"))):
        assert same(from_payload(parse(text)), spec)
        assert payload_hash(checked(parse(text))[0]) == payload_hash(payload)
    assert same(from_payload(shuffled(payload, random.Random(0))), spec)
    assert same(from_payload(with_whole_numbers(payload)), spec)
    assert payload_hash(shuffled(with_whole_numbers(payload), random.Random(1))) == payload_hash(payload)
    grown = {**payload, "spec": before_growth({"~": tag, **payload["spec"]})}  # type: ignore[dict-item]
    del grown["spec"]["~"]
    assert same(from_payload(grown), spec)


def words_of(value: Any) -> list[str]:
    """A value as words of a command line."""
    if isinstance(value, tuple):
        return [word for item in value for word in words_of(item)]
    return [str(value.value) if isinstance(value, enum.Enum) else str(value)]


@given(base=st.sampled_from(list(experiments().values())), data=st.data())
@some
def test_the_command_line_a_file_and_python_give_one_spec(base: Any, data: st.DataObject) -> None:
    types = {leaf.path: leaf.type for leaf in leaves(base)}
    argv: list[str] = []
    wanted: dict[str, Any] = {}
    for path, value in data.draw(changes(base)).items():
        words = words_of(value)
        said = "None" if value is None else "None" not in words
        if is_settable(types[path]) and said and (len(words) == 1 or not any(map(is_flag, words))):
            argv += [f"--spec.{path}={words[0]}"] if len(words) == 1 else [f"--spec.{path}", *words]
            wanted[path] = value
    in_python = replace(base, wanted)
    parsed, problems = parse_fields(base, scan(argv, ()).fields)
    assert problems == []
    assert same(replace(base, parsed), in_python)
    assert same(from_payload(parse_json(dumps(in_python))), in_python)


@given(base=st.sampled_from(list(experiments().values())), data=st.data())
@some
def test_changes_move_the_hashes_by_their_roles_and_taking_them_back_restores_them(
    base: Any, data: st.DataObject
) -> None:
    wanted = data.draw(changes(base))
    changed = replace(base, wanted)
    found = diff(base, changed)
    semantic = any(one.role is SEMANTIC for one in found)
    execution = any(one.role is EXECUTION and not one.by_hash for one in found)
    assert (spec_hash(changed) != spec_hash(base)) == semantic
    assert (exact_hash(changed) != exact_hash(base)) == (semantic or execution)
    assert same(replace(changed, {path: get(base, path) for path in wanted}), base)


@given(data=st.data())
@few
def test_a_whole_number_in_an_integer_field_stays_an_integer(data: st.DataObject) -> None:
    payload: Any = to_payload(data.draw(st.sampled_from(list(experiments().values()))))
    payload["spec"]["fps" if payload["kind"] == "infer" else "seed"] = 8.0
    with pytest.raises(SpecError, match="expected int, got float"):
        from_payload(payload)
