"""What every server of ours does: it answers whom it may, lets a page run nothing but its own, and ends well.

Needs starlette and uvicorn, which `mm-config[web]` asks for; `check_web` says so before anything else.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import platform
import signal
import socket
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs

from mm_config.schema.errors import Problem, UserError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""What a page may do: use what this server has, and nothing from anywhere else."""
FILE_POLICY = "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'"
"""What a file may do that somebody wrote: be looked at."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer that says nothing else."""
MEDIA = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".json": "text/plain; charset=utf-8",
    ".jsonl": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".log": "text/plain; charset=utf-8",
}
"""As what a file is served; none is a document that a browser runs, and others are not served."""


@attrs.frozen
class Asset:
    """A file of a package, under an address that changes with it."""

    url: str
    """Where it is served."""
    content: bytes
    """What it holds."""
    media_type: str
    """What that is."""


def check_web(extra: str) -> None:
    """Refuses where the libraries of a server are missing.

    Args:
        extra: What installs them, such as `mm-train[board]`.

    Raises:
        UserError: They are.
    """
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        message = f"{' and '.join(missing)}, which a server needs, can't be found (pip install '{extra}')"
        raise UserError(message)


def guarded(app: ASGIApp, *, names: Iterable[str] = (), most_body: int = 0) -> ASGIApp:
    """An application behind what every one of ours needs; the outermost layer, so that errors pass it too.

    A request has to name this machine as its host, by number, as `localhost`, by its own name or by one of
    `names`: the page of another site whose name is made to point here is refused. So is one that another
    site's page sends in order to change something, one with a longer body, and a web socket.

    Args:
        app: The application, of Starlette or FastAPI.
        names: More names that this server goes by, such as that of a proxy.
        most_body: Bytes of a request's body.
    """
    known = {"localhost", platform.node().lower(), *(name.lower() for name in names)}

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import PlainTextResponse

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = {name.lower() for name, _ in message.get("headers", ())}
                more = [(n.lower().encode(), v.encode()) for n, v in HEADERS.items()]
                headers = [*message.get("headers", ()), *(pair for pair in more if pair[0] not in told)]
                message = {**message, "headers": headers}
            await send(message)

        if scope["type"] == "http":
            if refused := _refusal(scope, known, most_body):
                status, why = refused
                await PlainTextResponse(f"{why}\n", status)(scope, receive, send_with_headers)
            else:
                await app(scope, _bounded(receive, most_body), send_with_headers)
        elif scope["type"] == "lifespan":
            await app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    return answer


def _refusal(scope: Scope, known: set[str], most_body: int) -> tuple[int, str] | None:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    if not _is_here(f"//{headers.get('host', '')}", known):
        return 421, "this server does not go by that name"
    origin = headers.get("origin")
    if scope["method"] not in ("GET", "HEAD", "OPTIONS") and origin and not _is_here(origin, known):
        return 403, "the page of another site may change nothing here"
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most_body:
        return 413, f"a body has at most {most_body:,} bytes here"
    return None


def _is_here(url: str, known: set[str]) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        if host in known:
            return True
        ipaddress.ip_address(host)  # No site can make a number point elsewhere.
    except ValueError:
        return False
    return True


def _bounded(receive: Receive, most: int) -> Receive:
    """What is received, until it is more than a body may have, whatever its head said."""
    seen = 0

    async def next_message() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            from starlette.exceptions import HTTPException

            raise HTTPException(413, f"a body has at most {most:,} bytes here")
        return message

    return next_message


def asset(package: str, name: str) -> Asset:
    """A style, script or picture that lies in a package."""
    content = (files(package) / name).read_bytes()
    kinds = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png"}
    shown = name.rpartition("/")[2]
    digest = hashlib.sha256(content).hexdigest()[:16]
    return Asset(f"/assets/{digest}/{shown}", content, kinds[Path(name).suffix])


def kit_styles() -> list[Asset]:
    """The styles of the page kit and its charts."""
    return [asset("mm_config.pages", name) for name in ("page.css", "uplot/uPlot.min.css")]


def kit_scripts() -> list[Asset]:
    """The scripts of the page kit and its charts, in their order."""
    return [asset("mm_config.pages", name) for name in ("uplot/uPlot.iife.min.js", "page.js")]


def asset_routes(assets: Iterable[Asset]) -> list[Route]:
    """Where the assets are served; a browser keeps them for ever."""
    from starlette.responses import Response
    from starlette.routing import Route

    kept = {"Cache-Control": "public, max-age=31536000, immutable"}

    def route(one: Asset) -> Route:
        def answer(_: Request) -> Response:
            return Response(one.content, media_type=one.media_type, headers=kept)

        return Route(one.url, answer)

    return [route(one) for one in assets]


def file_below(root: Path, relative: str) -> Path | None:
    """The file at a path below a folder, or None where there is none: links are followed inside it only."""
    try:
        found = Path(os.path.realpath(root / relative, strict=True))
        inside = found.is_relative_to(os.path.realpath(root, strict=True))
    except (OSError, ValueError):
        return None
    return found if inside and found.is_file() else None


def file_response(path: Path) -> Response:
    """A file that `file_below` found, also in ranges; 404 where its kind is none of `MEDIA`."""
    from starlette.responses import FileResponse, PlainTextResponse

    media_type = MEDIA.get(path.suffix.lower())
    if media_type is None:
        return PlainTextResponse("files of this kind are not served\n", 404)
    headers = {"Content-Security-Policy": FILE_POLICY, "Cache-Control": "no-cache"}
    return FileResponse(path, media_type=media_type, headers=headers)


def serve(
    app: ASGIApp,
    host: str,
    port: int,
    ready: Callable[[str], None],
    *,
    grace: float = 5.0,
    options: Sequence[str] = ("--host", "--port"),
) -> None:
    """Answers requests until Ctrl-C or SIGTERM; what is under way then may end.

    Args:
        app: What `guarded` gave.
        host: Name or number of the interface.
        port: 0 takes a free one.
        ready: Is given the address once it answers there.
        grace: Seconds for what is under way.
        options: What names the host and the port, for messages.

    Raises:
        UserError: The port is in use, or the interface is none of this machine's.
    """
    import uvicorn

    taken = _listening(host, port, options)
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=int(grace)
    )
    with taken, _ending():
        ready(f"http://{shown}:{taken.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[taken])


def _listening(host: str, port: int, options: Sequence[str]) -> socket.socket:
    named_host, named_port = options
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind)
    except OSError as error:
        raise UserError(Problem(named_host, f"{host!r} is no address: {error.strerror}")) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(256)
    except OSError as error:
        made.close()
        hint = f"; {named_port} names another, 0 takes a free one"
        raise UserError(
            Problem(named_port, f"{host}:{port} can't be used: {error.strerror}{hint}")
        ) from error
    return made


@contextmanager
def _ending() -> Generator[None]:
    """Lets a signal that ended the server, which it then sends itself again, be the end of it."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
