"""Several runs beside each other: curves overlaid, fields by what they change, videos of the same request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from mm_config import diff
from mm_config.cli import grouped
from mm_config.pages import Child, Html, number, section, side_by_side, tag, tuning
from mm_config.runs import mark_of
from mm_config.schema import RootSpec, UserError, for_person, get
from mm_train.board.frame import file_url, framed, run_link, state, took, video_url
from mm_train.board.runs import Board, Shown
from mm_train.report.parts import charts, times, video_figure
from mm_train.report.reading import Told

MOST = 8
"""Runs on a page."""
MOST_REQUESTS = 40
"""Prompts with seeds that are shown side by side."""
Request = tuple[str, str]
"""A prompt and a seed."""


def compare_page(board: Board, paths: Sequence[str]) -> str:
    """The page of several runs; those that are not known are said."""
    wanted = list(dict.fromkeys(paths))
    found = {path: board.shown(path) for path in wanted[:MOST]}
    runs = [shown for shown in found.values() if shown is not None]
    notes = [f"{path}: no run has this id" for path, shown in found.items() if shown is None]
    notes += [f"only the first {MOST} of {len(wanted)} runs are shown"] if len(wanted) > MOST else []
    notes += [problem for shown in runs for problem in shown.problems]
    parts = [tag("p", note, class_="warn", role="alert") for note in notes]
    if len(runs) < 2:
        table = tag("a", "table", href="/")
        parts.append(tag("p", "Choose two runs or more in the ", table, ".", class_="none"))
    else:
        parts += _parts(board, runs)
    return framed(f"{len(runs)} runs beside each other", board.runs_dir, *parts)


def _parts(board: Board, runs: Sequence[Shown]) -> Iterator[Html]:
    told = _named([shown.told for shown in runs if shown.told is not None])

    yield _at_a_glance(runs)
    yield section("What differs", *_fields([shown for shown in runs if shown.run is not None]))
    if told:
        yield section("How they went", tuning(), side_by_side(*charts(told)))
    if rows := list(_videos(board, runs)):
        heads = [tag("th", "prompt and seed", scope="col")]
        heads += [tag("th", run_link(shown.record.path), scope="col") for shown in runs]
        inside = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="runs pairs")
        yield section("Videos of the same prompt and seed", _scrolled(inside, "videos"))
    if told:
        yield section("Time by part", side_by_side(*map(times, told)))


def _named(told: Sequence[Told]) -> list[Told]:
    """Trainings by what tells them apart: their labels, or their folders where labels are the same."""
    labels, folders = ([one.name.partition("/")[at] for one in told] for at in (0, 2))
    unique = len(set(labels)) == len(labels)
    names = labels if unique else folders if len(set(folders)) == len(folders) else [one.name for one in told]
    return [attrs.evolve(one, name=name) for one, name in zip(told, names, strict=True)]


def _at_a_glance(runs: Sequence[Shown]) -> Html:
    rows: list[tuple[str, list[Child]]] = [
        ("state", [state(shown.record.status) for shown in runs]),
        ("kind", [shown.record.kind for shown in runs]),
        ("took", [took(shown.record) for shown in runs]),
        ("spec hash", [tag("code", shown.record.spec_hash[:12]) for shown in runs]),
    ]
    for title, name in {"loss, last": "loss", "loss on held-out clips, last": "validation/loss"}.items():
        last = [shown.told.last(name) if shown.told else None for shown in runs]
        if any(one is not None for one in last):
            rows.append((title, ["–" if one is None else tag("b", number(one)) for one in last]))
    return _columns(runs, rows)


def _columns(runs: Sequence[Shown], rows: Sequence[tuple[Child, Sequence[Child]]]) -> Html:
    """A table with a column for each run."""
    heads = [tag("td", tag("span", "field", class_="unseen"))]
    heads += [tag("th", run_link(shown.record.path), scope="col") for shown in runs]
    lines = [
        tag("tr", tag("th", name, scope="row"), *(tag("td", value) for value in values))
        for name, values in rows
    ]
    inside = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *lines), class_="runs compared")
    return _scrolled(inside, "runs beside each other")


def _scrolled(inside: Html, label: str) -> Html:
    return tag("div", inside, class_="table", tabindex="0", role="region", aria_label=label)


def _fields(runs: Sequence[Shown]) -> Iterator[Html]:
    """The fields that differ from those of the first run, under what they can change."""
    specs = [shown.run.spec for shown in runs if shown.run is not None]
    if len(specs) < 2:
        return
    changes = [change for other in specs[1:] for change in diff(specs[0], other) if change.path != "spec"]
    groups = grouped(changes)
    if len({type(spec) for spec in specs}) > 1:
        yield tag("p", "Their kinds differ: only fields that all have are compared.", class_="faint")
    if not groups:
        yield tag("p", "No field differs.", class_="faint")
    for title, found in groups.items():
        paths = dict.fromkeys(change.path for change in found)
        rows = [(tag("code", path), [_value(spec, path) for spec in specs]) for path in paths]
        yield tag("h3", title)
        yield _columns(runs, rows)


def _value(spec: RootSpec, path: str) -> Html:
    try:
        return tag("code", for_person(get(spec, path.removeprefix("spec."))))
    except (UserError, LookupError, AttributeError, TypeError):
        return tag("span", "–", class_="faint")


def _videos(board: Board, runs: Sequence[Shown]) -> Iterator[Html]:
    """A row for each prompt and seed that at least two runs made."""
    made = [_by_request(shown) for shown in runs]
    shared = list(dict.fromkeys(key for of_run in made for key in of_run))
    shared = [one for one in shared if sum(one in of_run for of_run in made) > 1]
    for prompt, seed in shared[:MOST_REQUESTS]:
        cells = [_cell(board, of_run.get((prompt, seed))) for of_run in made]
        yield tag("tr", tag("th", prompt, tag("div", f"seed {seed}", class_="faint"), scope="row"), *cells)


def _cell(board: Board, file: Path | None) -> Html:
    url = None if file is None else file_url(board.runs_dir, file)
    if file is None or url is None:
        return tag("td", "–", class_="faint")
    step = file.parent.name
    caption = f"after step {int(step.removeprefix('step-')):,}" if step.startswith("step-") else "open"
    return tag("td", video_figure(tag("a", caption, href=video_url(url)), url))


def _by_request(shown: Shown) -> Mapping[Request, Path]:
    """The newest video of each request."""
    if shown.told is not None:
        files = [file for videos in shown.told.samples.values() for file in videos]
    else:
        files = sorted(shown.folder.glob("samples/*.mp4")) if shown.is_here else []
    return {_request_of(file): file for file in files[-4 * MOST_REQUESTS :]}


def _request_of(file: Path) -> Request:
    """What a video says that it was asked to be; its name where it says nothing."""
    try:
        request = mark_of(file).request
    except UserError:
        return file.stem, "?"
    return request.prompt, str(request.seed)
