"""Pages hold texts as texts, load nothing, and count as numpy counts."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_config.pages import (
    Bin,
    Cell,
    Column,
    bars,
    bins_of,
    curves,
    facts,
    histogram,
    number,
    page,
    section,
    table,
    tag,
)

EVIL = """</td></script><script>alert(1)</script><img src=x onerror="alert(2)">&amp;'"""


class Read(HTMLParser):
    """What Python's own parser finds in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append((self.tags[-1][0] if self.tags else "", data))

    def all_of(self, name: str) -> list[dict[str, str | None]]:
        return [given for tag, given in self.tags if tag == name]

    def text_of(self, name: str) -> list[str]:
        return [text for tag, text in self.texts if tag == name and text.strip()]


def whole(text: str = EVIL) -> str:
    """A page of all parts, each with a text of a stranger's."""
    columns = [Column(text), Column("s", "number"), Column("state", "choice")]
    rows = [[text, 1.5, Cell(text, text)], ["short", None, "used"]]
    return page(
        text,
        section(text, facts((text, text)), table(columns, rows)),
        bars(text, [(text, 3)]),
        histogram(text, bins_of([1.0, 2.0]), text),
        curves(text, [1.0, 2.0], {text: [1.0, None]}, x_label=text),
        subtitle=text,
    )


@settings(max_examples=40)
@given(st.text(st.characters()))
def test_any_text_comes_back_as_text_and_makes_no_element(text: str) -> None:
    plain, read = Read(whole("x")), Read(whole(text))
    assert [name for name, _ in read.tags] == [name for name, _ in plain.tags]
    shown = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)
    assert "".join(read.text_of("h1")) == (shown if shown.strip() else "")
    whole(text).encode("utf-8")


def test_a_stranger_s_text_stays_text_in_every_part() -> None:
    read = Read(whole())
    assert [given for given in read.all_of("script") if given.get("type") != "application/json"] == [{}, {}]
    assert not read.all_of("img")
    assert read.text_of("td")[0] == EVIL
    (block,) = re.findall(r'<script type="application/json">(.*?)</script>', whole())
    assert json.loads(block)["names"] == [EVIL]


def test_the_policy_names_what_stands_there_and_nothing_else() -> None:
    text = whole()
    (policy,) = (one["content"] for one in Read(text).all_of("meta") if one.get("http-equiv"))
    rules = dict(one.split(" ", 1) for one in str(policy).split("; "))
    assert rules.pop("default-src") == rules.pop("base-uri") == rules.pop("form-action") == "'none'"
    assert rules.pop("img-src") == rules.pop("media-src") == "data:"
    for name in ("style", "script"):
        inside = re.findall(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in inside]
        assert rules.pop(f"{name}-src").split() == [f"'sha256-{digest}'" for digest in digests]
        assert len(inside) == 2
    assert not rules


def test_nothing_is_named_that_a_browser_would_fetch() -> None:
    for _, attributes in Read(whole()).tags:
        for name in ("src", "href", "srcset", "poster", "action", "style"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.findall(r"@import|url\(", whole("x"))


def test_curves_alone_bring_the_library_with_its_licence() -> None:
    plain, drawn = page("x", bars("y", [("z", 1)])), page("x", curves("y", [1.0], {"z": [2.0]}))
    assert "uPlot=" not in plain and len(plain) < 16_000
    assert "Permission is hereby granted" in drawn and len(drawn) < 72_000


@given(st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)), min_size=1, max_size=200))
def test_bins_count_what_numpy_counts(values: list[float]) -> None:
    bins = bins_of(values)
    assert sum(one.count for one in bins) == len(values) and len(bins) <= 26
    assert all(one.high == after.low for one, after in pairwise(bins))
    assert bins[0].low <= min(values) and max(values) <= bins[-1].high


def test_a_histogram_counts_what_numpy_counts() -> None:
    values = np.random.default_rng(0).gamma(2.0, 3.0, 5_000).round(4).tolist()
    bins = bins_of(values)
    edges = [one.low for one in bins] + [math.inf]
    assert [one.count for one in bins] == np.histogram(values, edges)[0].tolist()


def test_a_long_tail_is_counted_in_the_last_bin() -> None:
    bins = bins_of([float(value % 10) for value in range(1_000)] + [100_000.0])
    assert bins[-1] == Bin(9.0, math.inf, 101)
    assert "9 and more s: 101" in histogram("t", bins, "s")
    assert bins_of([5.0, 5.0]) == [Bin(5.0, 5.0, 2)] and bins_of([]) == []


@pytest.mark.parametrize(
    ("value", "shown"), [(1234567, "1,234,567"), (0.000123456, "0.0001235"), (16.0, "16"), (29.97, "29.97")]
)
def test_numbers_are_short(value: float, shown: str) -> None:
    assert number(value) == shown


def test_cells_are_sorted_by_their_value_and_not_by_how_it_is_shown() -> None:
    made = table([Column("n", "number")], [[1234567], [Cell("a minute", 60)], [None]])
    assert [one.get("data-key") for one in Read(made).all_of("td")] == ["1234567", "60", None]
    assert tag("td", data_key=0) == '<td data-key="0"></td>'
