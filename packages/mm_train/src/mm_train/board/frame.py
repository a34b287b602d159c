"""What all pages of a board share: the bar above, addresses, times, states, commands to copy."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlencode

from mm_config.pages import Asset, Child, Html, asset, kit_scripts, kit_styles, served_page, tag
from mm_config.runs import RunRecord, RunStatus

SIGNS = {
    RunStatus.RUNNING: "●",
    RunStatus.FINISHED: "✓",
    RunStatus.FAILED: "✕",
    RunStatus.INTERRUPTED: "‖",
}
"""Beside the word, so that colour is not all that tells them apart."""


@cache
def styles() -> tuple[Asset, ...]:
    """All styles of a page."""
    return (*kit_styles(), asset("mm_train.board", "board.css"))


@cache
def scripts() -> tuple[Asset, ...]:
    """All scripts of a page, in their order."""
    return (*kit_scripts(), asset("mm_train.board", "board.js"))


def framed(
    title: str,
    runs_dir: Path,
    *parts: Child,
    heading: Child = None,
    live: str | None = None,
    offset: int | None = None,
) -> str:
    """A page of the board.

    Args:
        title: In the browser's tab and, without another heading, above the page.
        runs_dir: Whose runs are shown.
        parts: What stands on it.
        heading: Above the page.
        live: How the page follows what goes on: `rows`, or the address of a run's numbers.
        offset: Where those begin that the page does not show.
    """
    bar = tag(
        "nav",
        tag("a", tag("b", "mm"), " board", href="/", class_="brand"),
        tag("span", str(runs_dir), class_="faint where", title=str(runs_dir)),
        aria_label="board",
    )
    top = Html(bar + tag("h1", title if heading is None else heading))
    inside = tag("div", *parts, id="page", data_live=live, data_offset=offset)
    return served_page(f"{title} · mm board", inside, top=top, styles=styles(), scripts=scripts())


def run_url(path: str) -> str:
    """The page of a run."""
    return f"/runs/{quote(path)}"


def file_url(runs_dir: Path, file: Path) -> str | None:
    """Where a file of the runs folder is served; None for one that lies elsewhere."""
    try:
        inside = file.absolute().relative_to(runs_dir)
    except ValueError:
        return None
    return f"/files/{quote(inside.as_posix())}"


def video_url(file: str) -> str:
    """The page of a video, by the address of its file."""
    return "/videos/" + file.removeprefix("/files/")


def compare_url(paths: Iterable[str]) -> str:
    """The page of several runs."""
    return f"/compare?{urlencode([('run', path) for path in paths])}"


def run_link(path: str, **attributes: str | None) -> Html:
    """A run's name, which leads to its page: the label, and the folder more faintly."""
    label, _, folder = path.partition("/")
    shown = (tag("b", label), " ", tag("span", folder, class_="faint"))
    return tag("a", *shown, href=run_url(path), **attributes)


def state(status: RunStatus) -> Html:
    """How far a run has come, as a sign and a word."""
    sign = tag("span", SIGNS[status], aria_hidden="true")
    return tag("span", sign, " ", status.value, class_=f"state {status.value}")


def moment(text: str) -> Html:
    """A time as it is stored, short, with how long ago that was."""
    shown = text[:16].replace("T", " ")
    try:
        ago = datetime.now(UTC) - datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return tag("time", shown)
    return tag("time", shown, " ", tag("span", _ago(ago), class_="faint"), datetime=text, title=text)


def _ago(passed: timedelta) -> str:
    seconds = max(passed.total_seconds(), 0)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"


def took(record: RunRecord) -> str:
    """How long a run took, or takes until now; empty where nobody wrote down when it ended."""
    if record.finished_at is None and record.status is not RunStatus.RUNNING:
        return ""
    try:
        since = datetime.fromisoformat(record.started_at)
        until = datetime.fromisoformat(record.finished_at) if record.finished_at else datetime.now(UTC)
        return str(timedelta(seconds=round((until - since).total_seconds())))
    except (ValueError, TypeError):
        return ""


def command(text: str, about: str) -> Html:
    """A command that a person copies."""
    button = tag("button", "copy", type="button", class_="copy", aria_label=f"copy: {about}")
    return tag("div", tag("span", about, class_="faint"), tag("code", text), button, class_="command")
