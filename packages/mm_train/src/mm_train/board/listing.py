"""The table of runs: asked for by an address alone, so that every view of it can be kept and sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlencode

import attrs
from starlette.datastructures import QueryParams

from mm_config.pages import Child, Html, joined, number, tag
from mm_config.rules import counted
from mm_config.runs import Asked, Condition, Listed, RunsPage, RunStatus, parse_condition, read_result
from mm_config.schema import Problem, UserError
from mm_config.stored import all_aliases
from mm_train.board.frame import framed, moment, run_link, state, took
from mm_train.board.runs import Board

MOST = 50
"""Runs of a page."""
STEPS = "schedule.steps"
_KEYS = ("where", "q", "status", "since", "until", "show", "sort", "up", "page")
_COLUMNS = {"name": "run", "status": "state", "kind": "kind", "started_at": "started (UTC)"}
"""Columns that runs are sorted by, and what stands above them."""


@attrs.frozen
class View:
    """What an address asks for."""

    asked: Asked
    """Of the index."""
    texts: tuple[str, ...]
    """The conditions that hold, as they were written."""
    params: Mapping[str, list[str]]
    """The address, without what is wrong."""
    wrong: tuple[tuple[str, str], ...] = ()
    """What could not be read, each with what is wrong with it."""

    def url(self, **changes: list[str]) -> str:
        """The address of another view."""
        pairs = [(key, one) for key, values in {**self.params, **changes}.items() for one in values]
        return f"/?{urlencode(pairs)}" if pairs else "/"


def view_of(params: QueryParams) -> View:
    """What an address asks for, as far as it can be read."""
    given = {key: [one.strip() for one in params.getlist(key) if one.strip()] for key in _KEYS}
    wrong: list[tuple[str, str]] = []
    conditions: dict[str, Condition] = {}
    for text in given["where"]:
        try:
            conditions[text] = parse_condition(text)
        except UserError as error:
            wrong.append((text, str(error)))
    status = next((one for one in RunStatus if [one.value] == given["status"][:1]), None)
    order = next(iter(given["sort"]), "started_at").removeprefix("spec.")
    page = next((int(one) for one in given["page"] if one.isdecimal() and len(one) < 9), 1)
    shown = dict.fromkeys(one.removeprefix("spec.") for one in given["show"][:6])
    asked = Asked(
        matching=next(iter(given["q"]), None),
        status=status,
        since=next(iter(given["since"]), None),
        until=next(iter(given["until"]), None),
        where=tuple(conditions.values()),
        aliases=all_aliases(),
        fields=tuple(shown),
        order=order,
        descending=not given["up"],
        first=(max(page, 1) - 1) * MOST,
        most=MOST,
    )
    return View(asked, tuple(conditions), {**given, "where": list(conditions)}, tuple(wrong))


def listed(board: Board, view: View) -> tuple[View, RunsPage]:
    """The runs that are asked for; what no run can meet is left out, and said."""
    try:
        return view, board.page(view.asked)
    except UserError as error:
        left = _without(view, error.problems)
        return left, board.page(left.asked)


def _without(view: View, problems: Sequence[Problem]) -> View:
    """A view without what it was refused for."""
    said = {problem.path: str(problem) for problem in problems}
    names = {one.path: {f"spec.{path}" for path in one.paths(view.asked.aliases)} for one in view.asked.where}
    bad = {
        text: next(message for path, message in said.items() if path in names[one.path])
        for text, one in zip(view.texts, view.asked.where, strict=True)
        if names[one.path] & said.keys()
    }
    fields = [f"spec.{path}" for path in (view.asked.order, *view.asked.fields)]
    bad |= {path: said[path] for path in fields if path in said}
    rest = dict(view.params)
    if not bad:  # Then it is a date.
        rest["since"], rest["until"], bad = [], [], {"": "; ".join(said.values())}
    params = QueryParams([(key, one) for key, values in rest.items() for one in values if _kept(one, bad)])
    clean = view_of(params)
    return attrs.evolve(clean, wrong=(*view.wrong, *bad.items()))


def _kept(text: str, bad: Mapping[str, str]) -> bool:
    return text not in bad and f"spec.{text.removeprefix('spec.')}" not in bad


def listing(board: Board, params: QueryParams) -> str:
    """The page of the table."""
    view, page = listed(board, view_of(params))
    parts = (
        _filters(board, view),
        _chips(view),
        *_errors(view),
        _table(board, view, page),
        _pages(view, page),
    )
    running = any(run.record.status is RunStatus.RUNNING for run in page.runs)
    return framed("Runs", board.runs_dir, *parts, live="rows" if running else None)


def _filters(board: Board, view: View) -> Html:
    wrong = [text for text, _ in view.wrong if text]
    hidden = [
        tag("input", type="hidden", name=key, value=one)
        for key in ("where", "show", "sort", "up")
        for one in view.params.get(key, ())
    ]
    states = [
        tag("option", one.value, value=one.value, selected="" if view.asked.status is one else None)
        for one in RunStatus
    ]
    return tag(
        "form",
        *hidden,
        _field(
            "condition",
            "where",
            wrong[0] if wrong else "",
            placeholder="optim.lr>1e-5",
            list="fields",
            spellcheck="false",
            autocomplete="off",
            aria_invalid="true" if view.wrong else None,
            aria_describedby="wrong" if view.wrong else None,
        ),
        _field("id, label or hash", "q", view.asked.matching or "", spellcheck="false"),
        tag("label", "state", tag("select", tag("option", "all", value=""), *states, name="status")),
        _field("since", "since", view.asked.since or "", placeholder="2026-11-22"),
        _field("show field", "show", "", placeholder="optim.lr", list="fields", autocomplete="off"),
        tag("button", "Filter", type="submit", class_="do"),
        tag("datalist", *(tag("option", value=path) for path in board.fields()), id="fields"),
        action="/",
        role="search",
        class_="asking",
    )


def _field(label: str, name: str, value: str, **more: str | None) -> Html:
    return tag("label", label, tag("input", name=name, value=value, **more))


def _chips(view: View) -> Html:
    chips = [_chip(view, "where", text, "") for text in view.texts]
    chips += [_chip(view, "show", path, "column ") for path in view.asked.fields]
    return tag("div", *chips, class_="chips") if chips else Html("")


def _chip(view: View, key: str, text: str, kind: str) -> Html:
    """Something that is asked for, and the way to the page without it."""
    rest = [
        one for one in view.params.get(key, ()) if one.removeprefix("spec.") != text.removeprefix("spec.")
    ]
    said = f"without {kind}{text}"
    return tag(
        "a", kind, tag("code", text), " ×", href=view.url(**{key: rest}), class_="chip", aria_label=said
    )


def _errors(view: View) -> Iterator[Html]:
    if view.wrong:
        lines = [tag("p", message) for _, message in view.wrong]
        yield tag("div", *lines, id="wrong", role="alert", class_="warn wrong")


def _table(board: Board, view: View, page: RunsPage) -> Html:
    if not page.runs:
        met = "No run meets this." if view.params.get("where") or view.asked.matching else "No runs here yet."
        return tag("p", met, class_="faint none")
    heads = [
        tag("th", tag("span", "chosen", class_="unseen"), scope="col"),
        *(_head(view, key, shown) for key, shown in _COLUMNS.items()),
        *(_head(view, path, path) for path in view.asked.fields),
        tag("th", "took", scope="col"),
        tag("th", "came to", scope="col"),
        _head(view, "spec_hash", "spec"),
    ]
    rows = [_row(board, view, run) for run in page.runs]
    inside = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="runs")
    choose = tag("div", tag("button", "Compare", type="submit", class_="do"), tag("output"), class_="chosen")
    scrolled = tag("div", inside, class_="table", tabindex="0", role="region", aria_label="runs")
    return tag("form", scrolled, choose, action="/compare", id="choose")


def _head(view: View, key: str, shown: str) -> Html:
    sorted_by = view.asked.order == key
    descending = sorted_by and view.asked.descending
    url = view.url(sort=[key], up=["1"] if descending else [], page=[])
    arrow = ("▼" if view.asked.descending else "▲") if sorted_by else ""
    said = ("descending" if descending else "ascending") if sorted_by else None
    sign = tag("span", f" {arrow}", aria_hidden="true") if arrow else None
    return tag("th", tag("a", shown, sign, href=url), scope="col", aria_sort=said)


def _row(board: Board, view: View, run: Listed) -> Html:
    record = run.record
    box = tag("input", type="checkbox", name="run", value=record.path, aria_label=f"choose {record.path}")
    cells: list[Child] = [
        box,
        run_link(record.path),
        state(record.status),
        record.kind,
        moment(record.started_at),
        *(_value(run.fields[path]) if path in run.fields else "" for path in view.asked.fields),
        took(record),
        _outcome(board, run),
        tag("code", record.spec_hash[:12], title=record.spec_hash),
    ]
    return tag("tr", *(tag("td", cell) for cell in cells))


def _value(value: object) -> Html:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return tag("code", number(value))
    return tag("code", str(value))


def _outcome(board: Board, run: Listed) -> Child:
    """What a run came to, in a few words: the reason of a failure, the loss of a training, the videos."""
    record = run.record
    if record.reason:
        return tag("span", record.reason[:120], class_="warn", title=record.reason)
    try:
        result = read_result(board.runs_dir / record.path) if record.status is RunStatus.FINISHED else {}
    except UserError:
        return tag("span", "its result can't be read", class_="warn")
    if isinstance(loss := result.get("loss"), float):
        return joined(("loss ", tag("b", number(loss))))
    if isinstance(videos := result.get("videos"), list):
        return counted(len(videos), "video")
    return ""


def _pages(view: View, page: RunsPage) -> Html:
    first, last = view.asked.first + 1, view.asked.first + len(page.runs)
    shown = f"{first:,}–{last:,} of {page.total:,}" if page.runs else counted(page.total, "run")
    at = view.asked.first // MOST + 1
    links = [
        tag("a", text, href=view.url(page=[str(to)]), rel=rel)
        for text, to, rel, there in (
            ("← newer", at - 1, "prev", at > 1),
            ("older →", at + 1, "next", last < page.total and page.runs),
        )
        if there
    ]
    keys = tag("span", "keys: / condition, j k rows, x choose, c compare", class_="faint keys")
    return tag("nav", tag("span", shown, id="count"), *links, keys, class_="pages", aria_label="pages")
