"""The page of one run: what it is, how it goes, what it was made of and what was made of it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from mm_config import rules
from mm_config.console import shell_command
from mm_config.options import RunOptions
from mm_config.pages import Child, Html, bars, facts, number, section, side_by_side, table, tag, tuning
from mm_config.pages import Column as Col
from mm_config.runs import RunStatus
from mm_config.schema import RootSpec, SpecError
from mm_config.specs import TrainSpec
from mm_train.board.frame import (
    command,
    compare_url,
    file_url,
    framed,
    moment,
    run_link,
    run_url,
    state,
    took,
    video_url,
)
from mm_train.board.left_behind import bad_clips, checkpoints_of
from mm_train.board.runs import Board, Link, Shown
from mm_train.report.parts import (
    accounted,
    charts,
    differences,
    meanings,
    samples,
    spec_table,
    summary,
    times,
    video_figure,
)

MOST_VIDEOS = 200
"""Of a generation that are shown on its page."""


def run_page(board: Board, shown: Shown) -> str:
    """The page of a run."""
    record, parents, children = shown.record, board.parents(shown), board.children(shown)
    live = f"{run_url(record.path)}/metrics" if record.status is RunStatus.RUNNING and shown.told else None
    heading = Html(run_link(record.path) + " " + tag("span", state(record.status), id="state"))
    parts = [
        *(tag("p", problem, class_="warn", role="alert") for problem in shown.problems),
        *([tag("p", record.reason, class_="warn")] if record.reason else []),
        _at_a_glance(shown),
        section("Commands", *_commands(board, shown)),
        section("Where it comes from, and what came of it", *_lineage(parents, children, shown)),
        *_progress(shown),
        *_left_behind(board, shown),
        *_origin(shown),
    ]
    return framed(record.path, board.runs_dir, *parts, heading=heading, live=live, offset=shown.offset)


def _at_a_glance(shown: Shown) -> Html:
    record = shown.record
    rows: list[tuple[str, Child]] = [
        ("kind", record.kind),
        ("started (UTC)", moment(record.started_at)),
        ("host", record.host),
        ("made of", tag("code", (record.made_of or "not recorded")[:12], title=record.made_of)),
    ]
    if shown.told is None:
        rows.append(("spec hash", tag("code", record.spec_hash[:12], title=record.spec_hash)))
    if "seconds" not in shown.result:
        rows.append(("took", took(record)))

    known = summary(shown.told, named=False) if shown.told else _result_facts(shown.result)
    return tag("div", known, tag("div", facts(*rows), class_="lesser"), id="facts")


def _result_facts(result: dict[str, Any]) -> Html:
    """The numbers that a run came to."""
    scores = {f"score, {name}": value for name, value in (result.get("score") or {}).items()}
    found = {name: one for name, one in {**result, **scores}.items() if type(one) in (int, float)}
    return facts(*((name.replace("_", " "), number(value)) for name, value in found.items()))


def _commands(board: Board, shown: Shown) -> Iterator[Html]:
    """What a person does with the run, to be copied."""
    run, options = shown.record.path, RunOptions(runs_dir=board.runs_dir)

    def line(*words: str) -> str:
        return shell_command(options, "mm", *words)

    yield command(line("show", run), "what its spec says")
    yield command(line("reproduce", run), "run it again, and compare bit by bit")
    if shown.run is not None and makes_videos(shown.run.spec, shown.record.status):
        yield command(
            line("generate", run, "--prompt", "a red circle moving up", "--out", "video.mp4"),
            "a video with its weights",
        )
    if shown.told is not None:
        yield command(line("report", run, "--out", "report.html"), "this page as one file")
    argv = shown.provenance.get("argv") or []
    if argv and shown.record.status in (RunStatus.FAILED, RunStatus.INTERRUPTED):
        again = ["python", *map(str, argv)] if str(argv[0]).endswith(".py") else list(map(str, argv))
        resumed = shlex.join([*_without_resume(again), "--resume", str(shown.folder)])
        yield command(resumed, "go on from its last checkpoint")


def makes_videos(spec: RootSpec, status: RunStatus) -> bool:
    """Whether `mm generate` takes the run: a training is finished, and says how its samples are made."""
    if not isinstance(spec, TrainSpec):
        return True
    try:
        rules.generation_by(spec)
    except SpecError:
        return False
    return status is RunStatus.FINISHED


def _without_resume(argv: list[str]) -> Iterator[str]:
    """A command line without what it resumed itself."""
    words = iter(argv)
    for word in words:
        if word == "--resume":
            next(words, None)
        elif not word.startswith("--resume="):
            yield word


def _lineage(parents: list[Link], children: list[Link], shown: Shown) -> Iterator[Html]:
    if not parents and not children:
        yield tag("p", "It was made of no other run, and none was made of it.", class_="faint")
        return
    here = tag("div", tag("b", shown.record.name), " ", state(shown.record.status), class_="here")
    yield tag(
        "div",
        *([_links("made of", parents)] if parents else []),
        here,
        *([_links("made of it", children)] if children else []),
        class_="lineage",
    )


def _links(title: str, links: list[Link]) -> Html:
    items = [
        tag(
            "li",
            run_link(link.path) if link.known else tag("span", link.path),
            " ",
            state(link.record.status) if link.record else tag("span", "not in this folder", class_="faint"),
            tag("div", link.field, class_="faint"),
        )
        for link in links
    ]
    return tag("div", tag("h3", title), tag("ul", *items))


def _progress(shown: Shown) -> Iterator[Html]:
    told = shown.told and attrs.evolve(shown.told, name=shown.record.name)
    if told is None:
        seconds = shown.result.get("timings")
        if isinstance(seconds, dict):
            spent = [(str(part), one) for part, one in seconds.items() if type(one) in (int, float)]
            yield section("Time by stage", side_by_side(bars("seconds", spent, "s")))
        return
    yield section("How it went", tuning(), tag("div", side_by_side(*charts([told])), id="curves"))
    parts = [times(told), *([accounted("all time", told.account)] if told.account else [])]
    under = [meanings()] if told.account else []
    yield section("Time by part", tag("div", side_by_side(*parts), *under, id="times"))


def _left_behind(board: Board, shown: Shown) -> Iterator[Html]:
    if shown.told is not None:
        yield section("Checkpoints", checkpoints_of(shown.told.run, shown.result))
        if bad := bad_clips(shown.folder):
            yield section("Quarantine", *bad)
        if shown.told.samples:

            def source(video: Path) -> str:
                return file_url(board.runs_dir, video) or ""

            inside = tag("div", *samples(shown.told, source), id="samples")
            yield section("Samples", inside)
    elif videos := videos_of(board, shown):
        figures = [
            video_figure(tag("a", name, href=video_url(url)), url) for name, url in videos[:MOST_VIDEOS]
        ]
        rest = len(videos) - MOST_VIDEOS
        more = [tag("p", f"and {rest:,} more in {shown.folder}", class_="faint")] if rest > 0 else []
        yield section("Videos", tag("div", *figures, class_="videos"), *more)


def videos_of(board: Board, shown: Shown) -> list[tuple[str, str]]:
    """The videos that lie in a generation's folder, each with the address of its file."""
    found = sorted(shown.folder.glob("samples/*.mp4")) if shown.is_here else []
    return [(file.stem, url) for file in found if (url := file_url(board.runs_dir, file))]


def _origin(shown: Shown) -> Iterator[Html]:
    if rows := list(_provenance(shown.provenance)):
        packages = [(name, str(one)) for name, one in shown.provenance.get("packages", {}).items()]
        folded = tag(
            "details",
            tag("summary", f"{len(packages)} packages"),
            table((Col("package"), Col("version")), packages),
        )
        shown_rows = table((Col("what"), Col("value")), rows, filters=False)
        yield section("Provenance", shown_rows, *([folded] if packages else []))
    if shown.told is not None and shown.told.parent is not None:
        parent = shown.told.parent
        if isinstance(parent.spec, TrainSpec):
            title = f"What differs from {'/'.join(parent.path.parts[-2:])}, whose weights it started from"
            both = compare_url(["/".join(parent.path.parts[-2:]), shown.record.path])
            link = tag("p", tag("a", "compare both", href=both))
            yield section(title, link, differences(parent.spec, shown.told.spec))
    if shown.run is not None:
        yield section("Spec", spec_table(shown.run.spec))


def _provenance(provenance: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for repository in provenance.get("git", ()):
        changes = " with changes" if repository.get("dirty") else ""
        yield f"git {Path(repository.get('root', '')).name}", f"{repository.get('commit')}{changes}"
    if argv := provenance.get("argv"):
        yield "command line", shlex.join(map(str, argv))
    for name in ("directory", "host", "platform", "python", "cpu_count", "devices"):
        if value := provenance.get(name):
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    for group in ("launcher", "ops"):
        for name, value in provenance.get(group, {}).items():
            yield f"{group.removesuffix('s')} {name}", str(value)
