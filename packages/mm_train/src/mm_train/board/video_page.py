"""The page of a video: a player, what it was asked to be, and which run and which weights made it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mm_config.console import shell_command
from mm_config.options import RunOptions
from mm_config.pages import Child, Html, facts, section, tag
from mm_config.runs import Mark, mark_of
from mm_config.schema import UserError
from mm_train.board.frame import command, file_url, framed, run_link
from mm_train.board.runs import Board


def video_page(board: Board, file: Path) -> str:
    """The page of a video in the runs folder."""
    url = file_url(board.runs_dir, file)
    player = tag("video", src=url, controls="", loop="", muted="", playsinline="")
    try:
        said = list(_told(board, file, mark_of(file)))
    except UserError as error:
        said = [tag("p", str(error), class_="warn", role="alert")]
    return framed(file.stem, board.runs_dir, tag("figure", player, class_="one"), *said)


def _told(board: Board, file: Path, mark: Mark) -> Iterator[Html]:
    request = mark.request
    asked: list[tuple[str, Child]] = [
        ("prompt", request.prompt),
        ("seed", tag("code", request.seed)),
        ("spec hash", tag("code", mark.spec_hash[:12], title=mark.spec_hash)),
        ("made of", tag("code", (mark.made_of or "not recorded")[:12], title=mark.made_of)),
    ]
    if request.negative_prompt:
        asked.append(("negative prompt", request.negative_prompt))
    yield facts(*asked)
    yield section("What made it", *_made_by(board, mark))
    options = RunOptions(runs_dir=board.runs_dir)
    show = command(shell_command(options, "mm", "show", str(file)), "what made it")
    again = shell_command(options, "mm", "reproduce", str(file))
    yield section("Commands", show, command(again, "make it again, and compare bit by bit"))


def _made_by(board: Board, mark: Mark) -> Iterator[Html]:
    shown = board.shown(mark.run) if mark.run else None
    if shown is None or shown.record.uid != mark.uid:
        where = f"the run {mark.run}, which is not in this folder" if mark.run else "no recorded run"
        yield tag("p", f"It was made by {where}.", class_="warn")
        return
    yield tag("p", "It was made by ", run_link(shown.record.path), ".")
    links = board.parents(shown)
    items = [
        tag("li", tag("code", link.field), " from ", run_link(link.path) if link.known else link.path)
        for link in links
    ]
    if items:
        yield tag("p", "The weights of that run:")
        yield tag("ul", *items)
