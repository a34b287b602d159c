"""Damaged payloads of all experiments: each is refused in plain lines, or means what it says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from mm_config.schema.decorator import registered_specs, tag_of
from mm_config.schema.errors import UserError
from mm_config.schema.fields import ABSENT, info_of, spec_fields, wire_name
from mm_config.schema.types import is_spec
from mm_config.stored.files import from_payload, to_payload
from mm_config.stored.parsing import parse_json, parse_yaml
from tests.mm_config.damage import Raw, Twice, as_json, as_yaml, corpus, mutate

LONGEST_LINE = 4000
"""Characters of a problem; the longest ones list all kinds that a field allows."""
READERS: dict[str, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    "json": (as_json, parse_json),
    "yaml": (as_yaml, parse_yaml),
}


def complete(value: Any, tag: Any = None) -> Any:
    """A payload with the neutral value of each field that it lacks, and without `~schema: 1`."""
    if isinstance(value, list):
        return [complete(item) for item in value]
    if not isinstance(value, dict):
        return value
    if tag is None and "kind" in value and isinstance(value.get("spec"), dict):
        return {**value, "spec": complete(value["spec"], value["kind"])}
    own: Any = value.get("~", tag)
    cls = registered_specs().get(own)
    whole = {key: complete(item) for key, item in value.items() if (key, item) != ("~schema", 1)}
    for attribute in spec_fields(cls) if cls else ():
        if (neutral := info_of(attribute).neutral) is not ABSENT:
            whole.setdefault(wire_name(attribute), written(neutral))
    return whole


def written(value: Any) -> Any:
    if is_spec(value):
        inside = {wire_name(one): written(getattr(value, one.name)) for one in spec_fields(type(value))}
        return {"~": tag_of(value), **inside}
    if isinstance(value, tuple):
        return [written(item) for item in value]
    return getattr(value, "value", value)


def means(loaded: Any, said: Any) -> bool:
    """Whether what was loaded is what was said: the same data, but that 1 may be said for 1.0."""
    if isinstance(said, dict) and isinstance(loaded, dict):
        return said.keys() == loaded.keys() and all(means(loaded[key], said[key]) for key in said)
    if isinstance(said, list) and isinstance(loaded, list):
        return len(said) == len(loaded) and all(map(means, loaded, said))
    return loaded == said and type(loaded) in ((int, float) if type(said) is int else (type(said),))


def readable(value: Any) -> bool:
    """Whether nothing is written twice or in a way that no spec can hold."""
    if isinstance(value, (Raw, Twice)):
        return False
    if isinstance(value, dict):
        return all(map(readable, value.values()))
    return all(map(readable, value)) if isinstance(value, list) else True


def check_mutants(format: str, count: int, seed: int, whole_share: float) -> int:
    """Damages payloads, writes them down and reads them; returns how many were refused."""
    write, parse = READERS[format]
    whole, parts = corpus()
    chance = random.Random(seed)
    refused = 0
    for number in range(count):
        mutant = json.loads(chance.choice(whole if chance.random() < whole_share else parts))
        for _ in range(chance.choice((1, 1, 2, 3))):
            mutant = mutate(mutant, chance)
        text = write(mutant)
        try:
            loaded = from_payload(parse(text))
        except UserError as error:
            refused += 1
            lines = [str(problem) for problem in error.problems]
            assert lines, f"mutant {number}"
            for line in lines:
                assert line.isprintable() and 0 < len(line) <= LONGEST_LINE, f"mutant {number}: {line!r}"
        else:
            assert readable(mutant), f"mutant {number} was accepted"
            assert means(to_payload(loaded), complete(mutant)), f"mutant {number} changed its meaning"
    return refused


@pytest.mark.parametrize("format", READERS)
def test_a_damaged_payload_is_refused_in_lines_or_means_what_it_says(format: str) -> None:
    refused = check_mutants(format, 1000, seed=0, whole_share=0.3 if format == "json" else 0.03)
    assert 600 < refused < 1000


@pytest.mark.slow
@pytest.mark.parametrize(("format", "count"), [("json", 80_000), ("yaml", 20_000)])
def test_no_damage_of_many_gives_a_traceback_or_is_accepted_in_silence(format: str, count: int) -> None:
    refused = check_mutants(format, count, seed=1, whole_share=0.3 if format == "json" else 0.03)
    assert 0.6 * count < refused < count


def test_the_checks_of_this_file_see_what_they_are_for() -> None:
    assert means({"a": 1.0, "b": [None]}, {"a": 1, "b": [None]})
    for loaded, said in (
        (1, 1.0),
        (1, True),
        (True, 1),
        ({}, {"a": 1}),
        ([1], [1, 1]),
        ("1", 1),
        (0.0, None),
    ):
        assert not means(loaded, said)
    assert not readable({"a": [Twice(a=1)]}) and not readable([Raw("1e999")])
    assert as_json(Twice(a=1)) == '{"a": 1, "a": 1}'
    assert as_yaml({"a": Twice(b="no"), "c": [1.0, "~"]}) == '\na:\n  b: no\n  b: no\nc:\n  - 1.0\n  - "~"'
    for text in experiments_json():
        payload = json.loads(text)
        for write, parse in READERS.values():
            assert means(to_payload(from_payload(parse(write(payload)))), payload)


def experiments_json() -> list[str]:
    return corpus()[0]
