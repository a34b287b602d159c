"""A page in headless Chromium, as a person sees it; every request that would leave the machine is noted."""

from __future__ import annotations

import os
import shutil
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


OWN = (".googleapis.com", ".google.com", ".gvt1.com")
"""Whom Chromium itself asks for updates, whatever page is open."""


@attrs.define
class Seen:
    """A page that is open, and what went on in it."""

    page: Page
    said: list[str] = attrs.field(factory=list)
    """Messages of the console, and errors that no one caught."""
    asked: list[str] = attrs.field(factory=list)
    """First lines of all requests that reached the proxy, which is the only way out."""


def chromium() -> str:
    found = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    assert found, "these tests look at pages in Chromium: apt-get install chromium"
    return found


@contextmanager
def opened(path: Path, *, dark: bool = False, width: int = 1280, height: int = 900) -> Iterator[Seen]:
    """Opens a file in a browser of its own, whose only way out is a proxy that refuses and notes."""
    with _browsed("<-loopback>", dark, width, height) as seen:
        seen.page.goto(path.resolve().as_uri())
        yield seen


@contextmanager
def visited(url: str, *, dark: bool = False, width: int = 1280, height: int = 900) -> Iterator[Seen]:
    """Opens a page of a server on this machine; all other ways out are a proxy that refuses and notes."""
    with _browsed("127.0.0.1", dark, width, height) as seen:
        seen.page.goto(url)
        yield seen


@contextmanager
def _browsed(bypass: str, dark: bool, width: int, height: int) -> Iterator[Seen]:
    with _refusing_proxy() as (port, asked), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=[*QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])],
            proxy={"server": f"http://127.0.0.1:{port}", "bypass": bypass},
        )
        page = browser.new_page(
            color_scheme="dark" if dark else "light", viewport={"width": width, "height": height}
        )
        seen = Seen(page, asked=asked)
        page.on("console", lambda message: seen.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.said.append(f"uncaught: {error}"))
        try:
            yield seen
        finally:
            browser.close()


def faults_of(page: Page) -> list[str]:
    """What axe-core finds on a page that keeps people from using it: its serious and critical faults."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {[node['target'] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@contextmanager
def _refusing_proxy() -> Iterator[tuple[int, list[str]]]:
    asked: list[str] = []

    class Noting(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            line = self.rfile.readline().decode("latin-1").strip()
            if not any(host in line for host in OWN):
                asked.append(line)
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Noting) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()
