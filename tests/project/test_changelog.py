"""CHANGELOG.md names every field that came after its class's birth, with its neutral value."""

from __future__ import annotations

import enum
import re
import textwrap
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mm_config.schema.decorator import schema_of
from mm_config.schema.fields import ABSENT, info_of, spec_fields, wire_name
from mm_config.schema.types import class_of, is_spec
from mm_config.stored.structuring import known_specs

ROOT = Path(__file__).parents[2]
CHANGELOG = ROOT / "CHANGELOG.md"
BIRTHS = ROOT / "tests" / "mm_config" / "births.txt"
Entry = tuple[str, str]
"""A class's tag, and `field=neutral` or `schema N`."""


def entries() -> list[Entry]:
    """What happened to our classes since their births, in order of tags and fields."""
    found: list[Entry] = []
    for tag, cls in sorted(known_specs().items()):
        if not cls.__module__.startswith("mm_config."):
            continue
        if schema_of(cls) > 1:
            found.append((tag, f"schema {schema_of(cls)}"))
        for attribute in spec_fields(cls):
            neutral = info_of(attribute).neutral
            if neutral is not ABSENT:
                found.append((tag, f"{wire_name(attribute)}={written(neutral)}"))
    return found


def written(neutral: Any) -> str:
    if isinstance(neutral, enum.Enum):
        return str(neutral.value)
    if is_spec(neutral):
        values = {one: getattr(neutral, one.name) for one in spec_fields(class_of(neutral))}
        given = (f"{one.name}={written(value)}" for one, value in values.items() if value != one.default)
        return f"{class_of(neutral).__name__}({', '.join(given)})"
    return repr(neutral)


def listed(section: str) -> set[Entry]:
    """The entries of one version's list."""
    lines = re.findall(r"^- (.+(?:\n  .+)*)", section, re.MULTILINE)
    spans = [re.findall(r"`([^`]+)`", re.sub(r"\n *", " ", line)) for line in lines]
    return {(tag, one) for tag, *others in spans for one in others}


def as_list(found: Iterable[Entry]) -> str:
    by_tag: dict[str, list[str]] = {}
    for tag, one in found:
        by_tag.setdefault(tag, []).append(f"`{one}`")
    lines = [f"- `{tag}`: {', '.join(ones)}" for tag, ones in by_tag.items()]
    wrap = textwrap.TextWrapper(120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "".join(f"{wrap.fill(line)}\n" for line in lines)


def with_entries(text: str, found: list[Entry]) -> str:
    """The page with its newest version's list written anew: what no older version lists."""
    head, newest, *older = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    told = {entry for section in older for entry in listed(section)}
    said = re.split(r"^- ", newest, maxsplit=1, flags=re.MULTILINE)[0].strip()
    lines = as_list(entry for entry in found if entry not in told)
    return "\n\n".join(part.strip() for part in (head, said, lines, *older)) + "\n"


def test_the_newest_version_lists_what_came_after_the_births(update: bool) -> None:
    text = CHANGELOG.read_text("utf-8")
    if update:
        CHANGELOG.write_text(with_entries(text, entries()), "utf-8")
        text = CHANGELOG.read_text("utf-8")
    assert text == with_entries(text, entries()), "run `make goldens`, then read what changed in CHANGELOG.md"


def test_the_list_holds_no_field_of_birth() -> None:
    births = {(tag, name) for line in BIRTHS.read_text().splitlines() for tag, name in fields_of(line)}
    named = {(tag, one.split("=")[0]) for tag, one in listed(CHANGELOG.read_text("utf-8"))}
    assert ("adamw", "state_bits") in named and not named & births


def fields_of(line: str) -> list[Entry]:
    tag, *names = line.split()
    return [(tag.removesuffix(":"), name) for name in names]


def test_a_second_version_lists_only_what_is_new() -> None:
    released = "# Changelog\n\n## 0.1.0\n\nThe first.\n\n- `adamw`: `a=None`, `b=(1, 2)`\n"
    begun = released.replace("## 0.1.0", "## 0.2.0, unreleased\n\nThe second.\n\n## 0.1.0")
    found = [("adamw", "a=None"), ("adamw", "b=(1, 2)"), ("adamw", "c=0"), ("data", "schema 2")]
    second = "The second.\n\n- `adamw`: `c=0`\n- `data`: `schema 2`\n\n## 0.1.0\n"
    assert second in with_entries(begun, found)
    assert with_entries(with_entries(begun, found), found) == with_entries(begun, found)


def test_the_newest_version_is_that_of_the_packages() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    (newest, *_) = re.findall(r"^## (\S+?)(?:, unreleased)?$", CHANGELOG.read_text("utf-8"), re.MULTILINE)
    assert newest == version
