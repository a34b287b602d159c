"""The board as an application: an address for each page, for the files of runs, for what goes on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from mm_config.pages import asset_routes, file_below, file_response, guarded, tag
from mm_config.schema import UserError
from mm_train.board.comparing import compare_page
from mm_train.board.frame import framed, scripts, styles
from mm_train.board.listing import listing
from mm_train.board.live import lines_after
from mm_train.board.run_page import run_page
from mm_train.board.runs import Board
from mm_train.board.video_page import video_page

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def board_app(runs_dir: Path, names: Iterable[str] = ()) -> ASGIApp:
    """The board of a runs folder.

    Args:
        runs_dir: The folder.
        names: More names that its server goes by.

    Raises:
        UserError: The runs can't be read.
    """
    board = Board(runs_dir)

    def index(request: Request) -> Response:
        return HTMLResponse(listing(board, request.query_params))

    def run(request: Request) -> Response:
        path = "{label}/{folder}".format(**request.path_params)
        if (shown := board.shown(path)) is None:
            raise HTTPException(404, f"no run has the id {path}")
        return HTMLResponse(run_page(board, shown))

    def metrics(request: Request) -> Response:
        path = "{label}/{folder}".format(**request.path_params)
        offset = request.query_params.get("offset", "0")
        listed = board.find(path)
        file = file_below(board.runs_dir, f"{path}/metrics.jsonl")
        if listed is None or not offset.isdecimal() or len(offset) > 18:
            raise HTTPException(404, f"no run has the id {path}, or the offset is none")
        told = lines_after(file or board.runs_dir / path / "metrics.jsonl", int(offset))
        return JSONResponse({**told, "status": listed.record.status.value})

    def compare(request: Request) -> Response:
        return HTMLResponse(compare_page(board, request.query_params.getlist("run")))

    def video(request: Request) -> Response:
        file = _file(board, request)
        if file.suffix.lower() != ".mp4":
            raise HTTPException(404, "this is no video")
        return HTMLResponse(video_page(board, file))

    def file(request: Request) -> Response:
        return file_response(_file(board, request))

    def refused(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        message = error.detail if isinstance(error, HTTPException) else str(error)
        page = framed("Not here", board.runs_dir, tag("p", message, class_="warn", role="alert"))
        return HTMLResponse(page, status)

    routes = [
        Route("/", index),
        Route("/runs/{label}/{folder}", run),
        Route("/runs/{label}/{folder}/metrics", metrics),
        Route("/compare", compare),
        Route("/videos/{path:path}", video),
        Route("/files/{path:path}", file),
        *asset_routes([*styles(), *scripts()]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: refused, UserError: refused})
    return guarded(app, names=names)


def _file(board: Board, request: Request) -> Path:
    """The file below the runs folder that an address names; what begins with a dot is none of a run's."""
    path: str = request.path_params["path"]
    found = (
        None if any(part.startswith(".") for part in path.split("/")) else file_below(board.runs_dir, path)
    )
    if found is None:
        raise HTTPException(404, "no such file")
    return found
